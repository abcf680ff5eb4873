"""The contact sheet: every cell of a board on one picture, in order.

It is what a saved notebook shows without a kernel, what `comfynb demo` leaves behind and what
people send to each other, so it is made to be looked at on white, small and large, and to stay
small: it draws from thumbnails, one at a time, and shows a sample of a very long board.
"""

from __future__ import annotations

import dataclasses
import io
import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from PIL import Image, ImageDraw

from comfynb.errors import LogError
from comfynb.keyframes import Keyframe, Kind, Status
from comfynb.pictures import BadPictureError
from comfynb.showing.lettering import Face
from comfynb.showing.shrink import shrink, smallest
from comfynb.showing.wording import WITHOUT, words_for

if TYPE_CHECKING:
    from comfynb.cells import Cell

Thumbnail = Callable[[Keyframe], bytes | Path]
"""Gives the first picture of a keyframe, at any size from the tile's up."""

PAPER, MAT, HAIRLINE = "#fcfbf9", "#f3f1ed", "#e3dfd8"
INK, QUIET = "#1f1e1c", "#7b766e"


class Sheet(Image.Image):
    """A contact sheet, which is small where it is shown in a notebook.

    Pillow would save it there twice, as PNG and as JPEG, in megabytes.
    """

    def _repr_png_(self) -> None:
        return None

    def _repr_jpeg_(self) -> bytes:
        return encode_jpeg(self)


@dataclass(frozen=True, slots=True)
class Tile:
    """One place on the sheet.

    Attributes:
        number: Its place on the board, from 1.
        head: First line below it.
        detail: Second line; "" lets the first one run over both.
        state: What it says in place of a picture; "" where there is one.
        reason: Why, in smaller letters, or "".
        keyframe: Whose picture it shows, or None.
    """

    number: int
    head: str
    detail: str
    state: str = ""
    reason: str = ""
    keyframe: Keyframe | None = None


def contact_sheet(
    cells: Iterable[Keyframe | Cell],
    *,
    columns: int | None = None,
    tile_px: int = 256,
    title: str = "",
    note: str | None = None,
    limit: int = 100,
    thumbnail: Thumbnail | None = None,
) -> Image.Image:
    """Draw keyframes on one picture, in order: each one's picture, number and title or prompt.

    One without picture is a quiet tile that says why. Pictures keep their aspect ratio. The same
    keyframes give the same sheet, wherever the fonts are the same. For example, what was liked:

        comfynb.contact_sheet(log.keyframes(where="rating >= 4"), columns=4, title="Harbour")

    As the last line of a cell it shows itself, and adds at most 200 kB to the saved notebook.
    `sheet.save("harbour.png")` keeps every pixel of it.

    Args:
        cells: Keyframes, as `log.keyframes(...)`, `await run` or `await grid` give them, or cells
            that have none yet; in the order in which they shall stand.
        columns: Tiles in a row, at least 1; None: what makes a pleasant shape.
        tile_px: Width of a tile in pixels, 64 to 1024.
        title: Large, on top; "": none.
        note: Small, below it; None: how many pictures there are, "": nothing.
        limit: Tiles at most, at least 2. Of more cells it shows a sample over the whole length,
            and how many more there are.
        thumbnail: Where small pictures come from; None: the log's thumbnails where they are
            large enough, else the pictures themselves.

    Returns:
        A PIL image, RGB.

    Raises:
        ValueError: If there is no cell, or an option is out of range.
    """
    board = list(cells)
    if not board:
        raise ValueError("a contact sheet needs at least one cell")
    if not 64 <= tile_px <= 1024:
        raise ValueError(f"tile_px must be 64 to 1024, not {tile_px}")
    if (columns is not None and columns < 1) or limit < 2:
        raise ValueError("columns must be at least 1 and limit at least 2")
    shown = _sample(len(board), limit)
    tiles = [_tile(index + 1, board[index]) for index in shown]
    if note is None:
        note = summary(board)
    more = len(board) - len(shown)
    places = len(tiles) + bool(more)
    layout = _Layout.of(tiles, places, columns, tile_px, header=bool(title) + bool(note))
    pen = _Pen(layout)
    pen.header(title, note)
    for place, tile in enumerate(tiles):
        pen.caption(place, tile)
        if tile.keyframe is None:
            pen.words(place, tile.state, tile.reason)
        else:
            pen.picture(place, tile.keyframe, thumbnail or partial(smallest, side_px=tile_px))
    if more:
        pen.words(len(tiles), f"and {more:,} more")
    return pen.sheet


def summary(cells: Sequence[Keyframe | Cell]) -> str:
    """Say in a line how many cells have a picture and what became of the others."""
    counts = Counter(status_of(cell) for cell in cells)
    gave = Counter(_gave(cell) for cell in cells if isinstance(cell, Keyframe) and cell.ok)
    pictures, others = gave["image"] + gave["animation"], gave.keys() - {"image", "animation"}
    parts = [_count(pictures, "picture")] if pictures or not others else []
    parts += [_count(gave[kind], kind) for kind in sorted(others)]
    parts += [f"{counts[status]:,} {words}" for status, words in WITHOUT.items() if counts[status]]
    return " · ".join(parts)


def _gave(keyframe: Keyframe) -> Kind:
    """Say what a keyframe is to who looks at it: its first picture, or whatever came first."""
    shown = keyframe.picture or next(iter(keyframe.outputs), None)
    return "image" if shown is None else shown.kind


def _count(number: int, kind: Kind | Literal["picture"]) -> str:
    """Write a number of things: "1 picture", "2 videos"; "audio" is not counted in plural."""
    if kind == "audio":
        return f"{number:,} audio"
    return f"{number:,} {kind if number == 1 else kind + 's'}"


def encode_png(sheet: Image.Image) -> bytes:
    """Return the sheet as a PNG file, without loss."""
    # Pillow's optimize=True saves another 4 % of the bytes and takes five times as long.
    return _encode(sheet, "PNG", compress_level=6)


def encode_jpeg(sheet: Image.Image, *, max_bytes: int = 200_000) -> bytes:
    """Return the sheet as a JPEG file no larger than asked.

    It gives up quality first, down to where letters begin to suffer, then size.

    Args:
        sheet: An RGB image.
        max_bytes: At least 4,000.

    Raises:
        ValueError: If max_bytes is less than that.
    """
    if max_bytes < 4000:
        raise ValueError(f"max_bytes must be at least 4000, not {max_bytes}")
    while True:
        for quality in (90, 84, 76, 68, 60):
            data = _encode(sheet, "JPEG", quality=quality, optimize=True, progressive=True)
            if len(data) <= max_bytes:
                return data
        # Bytes grow about with the area; a little less than that, and never in tiny steps.
        scale = min(0.85, math.sqrt(max_bytes / len(data)))
        size = (max(1, int(sheet.width * scale)), max(1, int(sheet.height * scale)))
        sheet = sheet.resize(size, Image.Resampling.LANCZOS)


def save_sheet(sheet: Image.Image, path: str | Path, *, max_bytes: int | None = None) -> Path:
    """Write the sheet to a file.

    Args:
        sheet: An RGB image.
        path: Ends with .png, .jpg or .jpeg; its folder is made where it is missing.
        max_bytes: Bound for a JPEG; None: a good quality, whatever it takes.

    Raises:
        ValueError: If the name ends otherwise, or max_bytes is given for a PNG.
        OSError: If it cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() == ".png":
        if max_bytes is not None:
            raise ValueError("a PNG keeps every pixel: max_bytes is for .jpg")
        data = encode_png(sheet)
    elif path.suffix.lower() in (".jpg", ".jpeg"):
        data = (
            _encode(sheet, "JPEG", quality=92, optimize=True, progressive=True)
            if max_bytes is None
            else encode_jpeg(sheet, max_bytes=max_bytes)
        )
    else:
        raise ValueError(f"a contact sheet is saved as .png or .jpg, not as {path.name!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def _encode(sheet: Image.Image, kind: Literal["PNG", "JPEG"], **options: object) -> bytes:
    file = io.BytesIO()
    sheet.save(file, kind, **options)
    return file.getvalue()


# What stands on a tile. ---------------------------------------------------------------------


def _sample(count: int, limit: int) -> Sequence[int]:
    """Return which of so many cells are shown: all, or evenly spread from first to last."""
    if count <= limit:
        return range(count)
    last = limit - 2  # one place says how many more there are
    return [round(place * (count - 1) / last) for place in range(limit - 1)] if last else [0]


def status_of(cell: Keyframe | Cell) -> Status:
    """Return where a cell stands; one without keyframe is queued."""
    return cell.status if isinstance(cell, Keyframe) else "queued"


def _tile(number: int, cell: Keyframe | Cell) -> Tile:
    prompt = cell.prompt or cell.scene.prompt
    detail = " · ".join(f"{axis} {label}" for axis, label in cell.axes.items() if axis != "scene")
    if cell.scene.title:
        head, detail = cell.scene.title, detail or prompt
    else:
        head = cell.scene.prompt or prompt
    keyframe = cell if isinstance(cell, Keyframe) else None
    if keyframe is not None and keyframe.ok and keyframe.picture:
        return Tile(number, head, detail, keyframe=keyframe)
    if keyframe is not None and keyframe.ok and keyframe.outputs:
        try:
            return Tile(number, head, detail, *words_for(keyframe))
        except (LogError, OSError) as exc:
            return Tile(number, head, detail, "the text cannot be read", str(exc))
    state = WITHOUT.get(status_of(cell), "no picture")
    reason = keyframe.error.message if keyframe is not None and keyframe.error else ""
    return Tile(number, head, detail, state, reason)


# Where it stands, and how it is drawn. ------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Layout:
    """Measures of a sheet, in pixels; they all grow with the tile."""

    columns: int
    rows: int
    tile: int
    box: int
    """Height of the box that a picture is fitted into; its width is the tile's."""
    header: int
    """Height above the first row, without the margin."""

    @classmethod
    def of(
        cls, tiles: Sequence[Tile], places: int, columns: int | None, tile_px: int, *, header: int
    ) -> _Layout:
        """Find the shape: the box takes the usual aspect ratio, the sheet about 3 to 2."""
        ratios = [
            output.height_px / output.width_px
            for tile in tiles
            if tile.keyframe is not None and (output := tile.keyframe.picture) is not None
            if output.width_px > 0
        ]
        ratio = min(1.5, max(0.5, statistics.median(ratios))) if ratios else 1.0
        shape = cls(
            1, 1, tile_px, round(tile_px * ratio), round((0, 42, 74)[header] * tile_px / 256)
        )
        if columns is None:
            columns = min(range(1, min(places, 12) + 1), key=lambda n: shape.strain(n, places))
        columns = min(columns, places)
        return dataclasses.replace(shape, columns=columns, rows=math.ceil(places / columns))

    def strain(self, columns: int, places: int) -> float:
        """How far a sheet of so many columns is from 3 to 2 without a gap at the end."""
        rows = math.ceil(places / columns)
        gaps = (rows * columns - places) / places
        across, down = columns * self.step_x, rows * self.step_y
        return abs(math.log(across / down / 1.5)) + 3 * gaps

    def scaled(self, at_256: float) -> int:
        """Scale a measure that is right for a tile of 256 pixels."""
        return round(at_256 * self.tile / 256)

    @property
    def margin(self) -> int:
        return self.scaled(44)

    @property
    def step_x(self) -> int:
        return self.tile + self.scaled(24)

    @property
    def step_y(self) -> int:
        return self.box + self.scaled(84)

    @property
    def size(self) -> tuple[int, int]:
        width = 2 * self.margin + self.columns * self.step_x - self.scaled(24)
        height = 2 * self.margin + self.header + self.rows * self.step_y - self.scaled(30)
        return width, height

    def corner(self, place: int) -> tuple[int, int]:
        """Return the upper left corner of a place's box."""
        row, column = divmod(place, self.columns)
        return (
            self.margin + column * self.step_x,
            self.margin + self.header + row * self.step_y,
        )


class _Pen:
    """Draws on a sheet, place by place."""

    def __init__(self, layout: _Layout) -> None:
        self.sheet = Image.new("RGB", layout.size, PAPER)
        self.sheet.__class__ = Sheet  # Pillow makes none of a subclass
        self._layout, self._draw = layout, ImageDraw.Draw(self.sheet)
        self._line = max(1, layout.scaled(1))

    def header(self, title: str, note: str) -> None:
        """Write the title and the line below it."""
        scaled, margin = self._layout.scaled, self._layout.margin
        width = self.sheet.width - 2 * margin
        baseline = margin + scaled(14)
        if title:
            face = Face(scaled(30))
            self._write(face, (margin, baseline), face.fit(title, width), INK)
            baseline += scaled(28)
        if note:
            face = Face(scaled(15))
            self._write(face, (margin, baseline), face.fit(note, width), QUIET)

    def caption(self, place: int, tile: Tile) -> None:
        """Write the number and at most two lines below a place."""
        scaled, (x, y) = self._layout.scaled, self._layout.corner(place)
        head, detail = Face(scaled(15)), Face(scaled(13.5))
        number = f"{tile.number:,}"
        indent = head.width(number) + scaled(9)
        width = self._layout.tile - indent
        baseline = y + self._layout.box + scaled(23)
        self._write(head, (x, baseline), number, QUIET)
        lines = head.wrap(tile.head, width, 1 if tile.detail else 2)
        for text in lines:
            self._write(head, (x + indent, baseline), text, INK)
            baseline += scaled(19)
        if tile.detail:
            text = detail.fit(tile.detail, width)
            self._write(detail, (x + indent, baseline), text, QUIET)

    def picture(self, place: int, keyframe: Keyframe, thumbnail: Thumbnail) -> None:
        """Fit a picture into the box of a place; say so where it cannot be read."""
        box = (self._layout.tile, self._layout.box)
        try:
            picture = shrink(thumbnail(keyframe), box, enlarge=True, paper=MAT)
        except (LogError, OSError, BadPictureError) as exc:
            self.words(place, "the picture cannot be read", str(exc))
            return
        x, y = self._layout.corner(place)
        if picture.size != box:
            self._mat(place)
        left, top = x + (box[0] - picture.width) // 2, y + (box[1] - picture.height) // 2
        self.sheet.paste(picture, (left, top))

    def words(self, place: int, state: str, reason: str = "") -> None:
        """Write words in place of a picture."""
        self._mat(place)
        scaled, (x, y) = self._layout.scaled, self._layout.corner(place)
        large, small = Face(scaled(16)), Face(scaled(13))
        width = self._layout.tile - 2 * scaled(24)
        room = max(0, int((self._layout.box - scaled(60)) / scaled(18)))
        lines = [(large, text, INK) for text in large.wrap(state, width, 2)]
        if reason and room:
            lines += [(small, text, QUIET) for text in small.wrap(reason, width, min(6, room))]
        heights = [scaled(24 if face is large else 18) for face, _, _ in lines]
        baseline = y + (self._layout.box - sum(heights)) // 2 - scaled(6)
        for (face, text, colour), height in zip(lines, heights, strict=True):
            baseline += height
            middle = x + (self._layout.tile - face.width(text)) / 2
            self._write(face, (middle, baseline), text, colour)

    def _mat(self, place: int) -> None:
        x, y = self._layout.corner(place)
        corner = (x + self._layout.tile - 1, y + self._layout.box - 1)
        self._draw.rectangle((x, y, *corner), fill=MAT, outline=HAIRLINE, width=self._line)

    def _write(self, face: Face, at: tuple[float, float], text: str, colour: str) -> None:
        face.draw(self.sheet, at, text, colour)
