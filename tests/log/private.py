"""What the tests of leaving out share: words that no file may tell, pictures that tell them."""

import hashlib
import io
import json

import duckdb
from PIL import Image, PngImagePlugin

from comfynb.keyframes import Output
from comfynb.log import sealing

WORDS = ("glimmerquark", "velvetine", "quillmoon", "murkfrost", "woolstitch", "mothnote", "zibbel")
"""Words of prompts, negatives, styles, notes and text knobs that stand nowhere else."""


def told(folder, words=WORDS) -> set[str]:
    """Return what a folder tells of some words: every byte, columns of Parquet, texts in PNGs."""
    found = set()
    for path in folder.rglob("*"):
        if not path.is_file():
            continue
        texts = [path.read_bytes().decode("latin-1")]
        if path.suffix == ".parquet":
            with duckdb.connect() as connection:
                rows = connection.execute(f"SELECT to_json(r)::VARCHAR FROM '{path}' AS r")
                texts += [row for (row,) in rows.fetchall()]
        if path.suffix == ".png":
            with Image.open(path) as image:
                image.load()
                texts += map(str, image.info.values())
        found |= {f"{path.name}: {word}" for word in words for t in texts if word in t.casefold()}
    return found


def written(mime="image/png", text="velvetine glimmerquark"):
    """Return a picture with a text in its metadata, as ComfyUI would save it."""
    image, file = Image.effect_noise((40, 30), 80).convert("RGB"), io.BytesIO()
    if mime == "image/png":
        info = PngImagePlugin.PngInfo()
        info.add_text("prompt", json.dumps({"3": {"inputs": {"text": text}}}), zip=True)
        info.add_text("workflow", text)
        info.add(b"prVt", text.encode())
        image.save(file, "PNG", pnginfo=info)
    elif mime == "image/gif":
        image.convert("P").save(file, "GIF", comment=text.encode())
    else:
        exif = Image.Exif()
        exif[0x010F] = f"workflow:{text}"
        image.save(file, mime.partition("/")[2].upper(), exif=exif)
    return file.getvalue()


def pixels(data):
    with Image.open(io.BytesIO(data)) as image:
        return image.mode, image.tobytes()


def output(data, mime="image/png", index=0):
    return Output("9", index, hashlib.sha256(data).hexdigest(), mime, len(data), 40, 30)


def seal(log):
    log.close()
    with sealing.database() as connection:
        sealing.adopt(log.folder / "seg", connection)
