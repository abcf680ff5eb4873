// A page with two ways to show a picture that comes through one socket: the grid's bundle, and
// as bare as can be. Both tell Python when the picture has been painted.

class Model {
  constructor(traits, socket) {
    this.traits = traits;
    this.socket = socket;
    this.listeners = new Set();
  }

  get(name) {
    return this.traits[name];
  }

  on(name, callback) {
    if (name === "msg:custom") {
      this.listeners.add(callback);
    }
  }

  off(name, callback) {
    this.listeners.delete(callback);
  }

  send(content) {
    this.socket.send(JSON.stringify({ content }));
  }
}

/** Resolve once the picture has been decoded and the frame that shows it has been made. */
async function painted(image) {
  await image.decode();
  await new Promise(requestAnimationFrame);
  const { port1, port2 } = new MessageChannel();
  await new Promise((resolve) => {
    port1.onmessage = resolve;
    port2.postMessage(null);
  });
}

/** Take a message apart: length of the head, head, buffers one after the other. */
function read(data) {
  const length = new DataView(data).getUint32(0, true);
  const { sizes, ...head } = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
  let at = 4 + length;
  const buffers = sizes.map((size) => {
    at += size;
    return new DataView(data, at - size, size);
  });
  return { head, buffers };
}

window.host = {
  async open(address, script, traits) {
    const socket = new WebSocket(address);
    socket.binaryType = "arraybuffer";
    await new Promise((resolve, reject) => {
      socket.onopen = resolve;
      socket.onerror = reject;
    });
    const model = new Model(traits, socket);
    const tell = (name) => socket.send(JSON.stringify({ painted: name }));

    const bare = document.querySelector("#bare");
    socket.onmessage = async ({ data }) => {
      const { head, buffers } = read(data);
      if (head.content) {
        for (const listener of [...model.listeners]) {
          listener(head.content, buffers);
        }
        return;
      }
      const image = new Image();
      image.src = URL.createObjectURL(new Blob([buffers[0]], { type: "image/webp" }));
      bare.append(image);
      await painted(image);
      tell(head.bare);
    };

    const view = document.querySelector("#grid");
    const seen = new Set();
    new MutationObserver(async () => {
      for (const image of view.querySelectorAll(".cnb-picture:not(.cnb-old)")) {
        if (!seen.has(image.src)) {
          seen.add(image.src);
          const cell = Number(image.closest(".cnb-tile").dataset.cell);
          painted(image).then(() => tell(cell));
        }
      }
    }).observe(view, { subtree: true, childList: true, attributeFilter: ["class", "src"] });

    const url = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
    const widget = (await import(url)).default();
    widget.initialize({ model });
    widget.render({ model, el: view });
  },
};
