"""Storyboards in files: each format there and back, and what is refused."""

from pathlib import Path

import pytest

from comfynb.errors import SceneError
from comfynb.scenes import Scene, Storyboard

PLAIN = Storyboard.of(["a fox", "a harbour at night", "日の出 🌅"])
SCENES = Storyboard.of(
    [
        {
            "id": "fox",
            "title": "The fox",
            "prompt": 'a "fox", red',
            "negative": "snow",
            "seed": 2**64 - 1,
        },
        {"prompt": "two\nlines", "notes": "a\r\nb", "steps": 8, "cfg": 2.5, "sampler": "euler"},
        {"id": "日の出", "prompt": "# no comment", "width": 320, "denoise": 0.5, "seed": 0},
        {"id": "007", "prompt": "yes", "checkpoint": "1e3", "image": "null", "scheduler": "007"},
        {"prompt": "tab\there; semicolon, comma", "height": 192, "cfg": 3},
    ]
)
EVERYTHING = Storyboard(
    scenes=(
        *SCENES,
        Scene(
            id="odd",
            prompt="\x07\x1b bell\x85next\u2028line\ufeff",
            knobs={"Up.on": True, "u": 1e-9},
        ),
        Scene(id="colon: x", prompt="- {a: b} & *c !d %e @f `g", knobs={"t": "", "n": "0x1F"}),
    ),
    style="ink, 35 mm",
    negative="blur",
    seed="random",
    knobs={"steps": 8, "Title.with: colon": "no"},
    title="A board",
)
TEXT_ONLY = {".json", ".yaml", ".yml", ".csv", ".tsv", ".txt"}


@pytest.mark.parametrize(
    ("suffix", "board"),
    [
        *((suffix, PLAIN) for suffix in sorted(TEXT_ONLY)),
        *((suffix, SCENES) for suffix in (".json", ".yaml", ".yml", ".csv", ".tsv")),
        *((suffix, EVERYTHING) for suffix in (".json", ".yaml", ".YML")),
    ],
)
def test_what_is_saved_is_loaded_as_it_was(tmp_path, suffix, board):
    path = tmp_path / f"board{suffix}"
    board.save(path)
    assert Storyboard.load(path) == board
    assert Storyboard.of(path) == board
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("suffix", "board", "message"),
    [
        (".txt", SCENES, "a .txt file has no place for a scene's title. Save it as .yaml or .json"),
        (".txt", Storyboard.of([{"id": "x", "prompt": "p"}]), "row 1: .* no place for the id 'x'"),
        (".txt", Storyboard.of(["a", "b\nc"]), "row 2: .* no place for a prompt of several lines"),
        (".txt", Storyboard.of(["# a"]), "no place for a prompt that begins with '#'"),
        (".txt", Storyboard.of("a", seed=3), r"no place for what scenes share \(seed\)"),
        (".csv", Storyboard.of("a", style="ink"), r"no place for what scenes share \(style\)"),
        (".tsv", Storyboard.of("a", knobs={"cfg": 3}), r"a .tsv .* scenes share \(knobs\)"),
        (".csv", Storyboard.of([{"prompt": "p", "knobs": {"x": 1}}]), "no place for the knob 'x'"),
    ],
)
def test_what_a_format_cannot_hold_is_refused_and_nothing_written(tmp_path, suffix, board, message):
    path = tmp_path / f"board{suffix}"
    path.write_text("older")
    with pytest.raises(SceneError, match=message) as caught:
        board.save(path)
    assert caught.value.source == str(path)
    assert path.read_text() == "older"
    assert len(list(tmp_path.iterdir())) == 1


def load(tmp_path: Path, name: str, content: str | bytes) -> Storyboard:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Storyboard.load(path)


def test_text_has_one_prompt_a_line(tmp_path):
    board = load(tmp_path, "x.txt", "\ufeff# scenes\r\n a fox \r\n\r\n  # more\r\na harbour")
    assert board == Storyboard.of(["a fox", "a harbour"])


def test_csv_numbers_are_numbers(tmp_path):
    text = "prompt,seed,steps,cfg\na,18446744073709551615,20.0,7\nb,,, \n"
    first, second = load(tmp_path, "x.csv", text)
    assert (first.seed, first.knobs) == (2**64 - 1, {"steps": 20, "cfg": 7})
    assert second == Scene(id="scene-2", prompt="b")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_spreadsheets_csv_is_read(tmp_path, delimiter):
    text = "\ufeff" + delimiter.join(["id", " prompt ", "notes"]) + "\r\n"
    text += delimiter.join(["fox", '"a fox, red; tab\t"', ""]) + "\r\n" + delimiter * 2 + "\r\n"
    assert load(tmp_path, "x.csv", text) == Storyboard.of(
        [{"id": "fox", "prompt": "a fox, red; tab"}]
    )


def test_a_column_without_a_name_and_anything_in_it_is_overlooked(tmp_path):
    assert load(tmp_path, "x.csv", "prompt,\na fox,\n") == Storyboard.of("a fox")


def test_rows_shorter_than_the_header_leave_the_rest_out(tmp_path):
    assert load(tmp_path, "x.csv", "prompt,steps\na fox\n") == Storyboard.of("a fox")


def test_yaml_and_json_may_hold_a_bare_list(tmp_path):
    wanted = Storyboard.of(["a fox", {"prompt": "a mill", "steps": 8}])
    assert load(tmp_path, "x.yaml", "- a fox\n- prompt: a mill\n  steps: 8\n") == wanted
    assert load(tmp_path, "x.json", '["a fox", {"prompt": "a mill", "steps": 8}]') == wanted


ROWS = {
    "csv unknown": (
        "x.csv",
        "prompt,stepz\na,\n",
        r"row 1: unknown key 'stepz'. Did you mean 'steps'",
    ),
    "csv bad int": (
        "x.csv",
        "id,prompt,steps\na,b,\nfox,d,many\n",
        r"row 2 \(id 'fox'\): .* the text 'many'",
    ),
    "csv bad seed": ("x.csv", "prompt,seed\na,-5\n", "row 1: the seed -5 is out of range"),
    "csv random": ("x.csv", "prompt,seed\na,random\n", "of a whole storyboard only"),
    "csv rounded": ("x.csv", "prompt,seed\na,1.8e19\n", "has lost its last digits"),
    "csv no prompt": ("x.csv", "id,prompt\nfox,\n", r"row 1 \(id 'fox'\): the prompt is missing"),
    "csv same id": ("x.csv", "id,prompt\na,b\na,c\n", r"row 2 \(id 'a'\): .* used by row 1"),
    "csv long row": ("x.csv", "prompt\na, b\n", "row 1: it has 2 cells, the header has 1 columns"),
    "csv no header": (
        "x.csv",
        "a fox\na mill\n",
        "header: there is no column 'prompt', only 'a fox'",
    ),
    "csv two columns": (
        "x.csv",
        "prompt,prompt\na,b\n",
        "header: the column 'prompt' is there twice",
    ),
    "csv open quote": ("x.csv", 'prompt\n"a fox\n', "line 2: the CSV is broken .* double quote"),
    "csv empty": ("x.csv", "", "the storyboard has no scenes"),
    "csv header only": ("x.csv", "prompt,steps\n", "the storyboard has no scenes"),
    "txt empty": ("x.txt", "# nothing\n\n", "the storyboard has no scenes"),
    "txt latin-1": (
        "x.txt",
        b"a fox\nN\xe9on\n",
        "line 2: the byte 0xe9 is not UTF-8. Save the file as",
    ),
    "json broken": ("x.json", '[\n"a",\n]', "line [23]: the JSON is broken"),
    "json scalar": ("x.json", "3", r"the file holds 3 \(int\), not a list of scenes"),
    "json deep": ("x.json", "[" * 200_000, "nested too deeply"),
    "json digits": ("x.json", "[" + "9" * 6000 + "]", "the JSON is broken"),
    "json infinity": (
        "x.json",
        '[{"prompt": "p", "cfg": 1e999}]',
        "'cfg' must be a number, not inf",
    ),
    "json surrogate": ("x.json", '["a \\ud83d"]', "row 1: the prompt holds half a character"),
    "yaml broken": ("x.yaml", "- a\n- b: c: d\n", "line 2: the YAML is broken"),
    "yaml empty": ("x.yaml", "# nothing\n", r"the file holds nothing \(None\)"),
    "yaml object": (
        "x.yaml",
        "!!python/object/apply:os.system [x]",
        "could not determine a constr",
    ),
    "yaml date": ("x.yaml", "- 2024-99-99\n", "the YAML is broken"),
    "yaml null byte": ("x.yaml", "- a\x00\n", "the YAML is broken"),
    "yaml deep": ("x.yaml", "[" * 200_000, "nested too deeply"),
    "yaml circle": ("x.yaml", "&a [*a]", "row 1: a scene must be a text or a mapping"),
    "yaml a day": ("x.yaml", "- prompt: 2024-01-02\n", "must be text, not .* Put it in quotes"),
}


@pytest.mark.parametrize(("name", "content", "message"), ROWS.values(), ids=ROWS)
def test_a_bad_file_is_refused_with_file_and_place(tmp_path, name, content, message):
    with pytest.raises(SceneError, match=message) as caught:
        load(tmp_path, name, content)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert caught.value.hint


def test_aliases_that_would_grow_without_bound_are_refused_at_once(tmp_path):
    lines = ["- &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"- &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    with pytest.raises(SceneError, match="row 1: a scene must be") as caught:
        load(tmp_path, "bomb.yaml", "\n".join(lines))
    assert len(str(caught.value)) < 1000


def test_a_missing_file_is_named_with_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SceneError, match=r"^nope.csv: there is no such file.*" + tmp_path.name):
        Storyboard.load("nope.csv")


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "x.csv").mkdir()
    with pytest.raises(SceneError, match=r"x.csv: the file cannot be read \(Is a directory\)"):
        Storyboard.load(tmp_path / "x.csv")


def test_a_null_byte_in_a_name_is_an_error_of_ours():
    with pytest.raises(SceneError, match="the file cannot be read"):
        Storyboard.load("x\0.csv")


def test_an_unknown_suffix_lists_the_known_ones(tmp_path):
    with pytest.raises(SceneError, match=r"the suffix '.xlsx' is not one of .json, .yaml"):
        Storyboard.load(tmp_path / "x.xlsx")
    with pytest.raises(SceneError, match=r"the suffix '' is not one of"):
        PLAIN.save(tmp_path / "x")


def test_a_huge_file_is_refused_unread(tmp_path):
    path = tmp_path / "x.txt"
    with path.open("wb") as file:
        file.truncate(10_000_001)
    with pytest.raises(SceneError, match="bigger than 10 MB"):
        Storyboard.load(path)


def test_a_folder_that_is_not_there_is_an_error_of_ours(tmp_path):
    with pytest.raises(SceneError, match=r"the file cannot be written \(No such file"):
        PLAIN.save(tmp_path / "nope" / "x.yaml")


def test_saving_replaces_the_older_file_and_keeps_the_usual_rights(tmp_path):
    path = tmp_path / "x.yaml"
    PLAIN.save(path)
    SCENES.save(path)
    other = tmp_path / "other"
    other.touch()
    assert Storyboard.load(path) == SCENES
    assert path.stat().st_mode == other.stat().st_mode
