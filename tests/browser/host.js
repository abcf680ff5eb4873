// A small notebook: one model, any number of views, and everything that was left behind counted.

const urls = new Set();
const { createObjectURL, revokeObjectURL } = URL;
URL.createObjectURL = (blob) => {
  const url = createObjectURL.call(URL, blob);
  urls.add(url);
  return url;
};
URL.revokeObjectURL = (url) => {
  urls.delete(url);
  revokeObjectURL.call(URL, url);
};

class Model {
  constructor(traits) {
    this.traits = traits;
    this.listeners = new Map();
    this.sent = [];
    this.alive = true;
  }

  get(name) {
    return this.traits[name];
  }

  set(name, value) {
    this.traits[name] = value;
  }

  save_changes() {}

  on(name, callback) {
    this.listeners.set(name, (this.listeners.get(name) ?? new Set()).add(callback));
  }

  off(name, callback) {
    this.listeners.get(name)?.delete(callback);
  }

  trigger(name, ...args) {
    for (const callback of [...(this.listeners.get(name) ?? [])]) {
      callback(...args);
    }
  }

  send(content) {
    if (!this.alive) {
      throw new Error("Cannot send");
    }
    this.sent.push(structuredClone(content));
  }
}

const bytesOf = (base64) => Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));

/** Like hosts that slice one large buffer: the view begins somewhere inside. */
const viewOf = (bytes) => {
  const buffer = new ArrayBuffer(bytes.length + 24);
  new Uint8Array(buffer).fill(7).set(bytes, 16);
  return new DataView(buffer, 16, bytes.length);
};

window.host = {
  urls,
  views: [],

  async open(script, traits, { signals = true } = {}) {
    const url = createObjectURL.call(URL, new Blob([script], { type: "text/javascript" }));
    this.widget = (await import(url)).default();
    this.signals = signals;
    this.model = new Model(traits);
    this.life = new AbortController();
    const props = signals ? { signal: this.life.signal } : {};
    this.cleanup = this.widget.initialize({ model: this.model, ...props });
  },

  show(parent) {
    const el = document.createElement("div");
    const life = new AbortController();
    const props = this.signals ? { signal: life.signal } : {};
    const cleanup = this.widget.render({ model: this.model, el, ...props });
    (parent ?? document.querySelector("main")).append(el);
    this.views.push({ el, life, cleanup });
  },

  hide(n) {
    const { el, life, cleanup } = this.views[n];
    if (this.signals) {
      life.abort();
    } else {
      cleanup();
    }
    el.remove();
  },

  close() {
    if (this.signals) {
      this.life.abort();
    } else {
      this.cleanup();
    }
  },

  deliver(content, buffers) {
    this.model.trigger("msg:custom", content, buffers.map(bytesOf).map(viewOf));
  },
};
