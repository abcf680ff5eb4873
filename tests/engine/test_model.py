"""The model answers to what it is told: by statistics over seeds, on small pictures.

Bits are compared where bits are promised. Distances are root mean squares over a whole array.
"""

import doctest
import hashlib
import inspect
import threading

import numpy as np
import pytest

from comfynb.engine import model as model_module
from comfynb.engine.model import WEIGHTS, TinyScenes
from comfynb.engine.samplers import SAMPLERS
from comfynb.engine.schedules import SCHEDULES

FOX = "a fox in the meadow at noon"


@pytest.fixture(scope="module")
def model():
    return TinyScenes()


@pytest.fixture(scope="module")
def sample(model):
    """Sample a small latent from a prompt, with few steps."""

    def sample(prompt=FOX, negative="", *, latent=None, side=64, **options):
        start = model.empty_latent(side, side) if latent is None else latent
        texts = model.conditioning(prompt), model.conditioning(negative)
        return model.sample(start, *texts, **{"seed": 1, "steps": 4} | options)

    return sample


@pytest.fixture(scope="module")
def source(sample):
    """A latent of a finished picture, to start from."""
    return sample("a castle in the snow", seed=5, steps=8, side=128)


def distance(a, b):
    return float(np.sqrt(np.mean((a - b) ** 2)))


# ---- the files ----------------------------------------------------------------------------


def test_weights_are_those_that_model_json_describes(model):
    for name, sha256 in model.info["sha256"].items():
        data = (WEIGHTS / name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == sha256, name
        assert len(data) == model.info["bytes"][name]


def test_defaults_are_the_model_cards(model):
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(TinyScenes.sample).parameters.items()
    }
    for knob in ("steps", "cfg", "sampler", "scheduler"):
        assert defaults[knob] == model.info["default"][knob]


def test_the_example_of_the_docstring_runs():
    assert doctest.testmod(model_module).failed == 0


# ---- the same again -----------------------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_same_arguments_give_the_same_bits(model, sample, sampler):
    first = sample(sampler=sampler, negative="clouds")
    assert np.array_equal(first, sample(sampler=sampler, negative="clouds"))
    assert np.array_equal(model.decode(first), model.decode(first))


def test_a_second_model_started_from_many_threads_gives_the_same_bits(sample):
    other = TinyScenes()
    results = []

    def draw():
        texts = other.conditioning(FOX), other.conditioning("")
        results.append(other.sample(other.empty_latent(64, 64), *texts, seed=1, steps=4))

    threads = [threading.Thread(target=draw) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(np.array_equal(result, sample()) for result in results)


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "euler_ancestral"])
def test_the_first_picture_of_a_batch_is_the_picture_alone(model, sample, sampler):
    batch = sample(latent=model.empty_latent(64, 64, 3), sampler=sampler)
    assert np.array_equal(batch[:1], sample(sampler=sampler))
    assert min(distance(batch[0], batch[1]), distance(batch[1], batch[2])) > 0.5
    assert np.array_equal(model.decode(batch)[:1], model.decode(batch[:1]))


# ---- every knob turns something -----------------------------------------------------------


@pytest.mark.parametrize(
    "knob",
    [
        {"prompt": "a fox in the meadow at night"},
        {"negative": "grass"},
        {"seed": 2},
        {"seed": 2**64 - 1},
        {"steps": 5},
        {"cfg": 3.0},
        *({"sampler": name} for name in SAMPLERS if name not in {"euler", "ddim"}),
        *({"scheduler": name} for name in SCHEDULES if name != "karras"),
    ],
    ids=str,
)
def test_every_knob_changes_the_picture(sample, knob):
    assert distance(sample(sampler="euler"), sample(**{"sampler": "euler"} | knob)) > 0.01


def test_large_seeds_are_seeds_of_their_own(sample):
    seeds = [0, 1, 2**32, 2**63, 2**64 - 1]
    latents = [sample(seed=seed, steps=1) for seed in seeds]
    for i, latent in enumerate(latents):
        assert all(distance(latent, other) > 0.01 for other in latents[:i])


def test_without_guidance_the_negative_prompt_has_no_effect(sample):
    assert np.array_equal(sample(cfg=1), sample(negative="a fox at night", cfg=1))


def test_more_guidance_leads_further_from_the_unconditional_picture_and_to_colour(model, sample):
    far, colours = np.zeros((4, 3)), np.zeros((4, 3))
    for seed in range(4):
        unconditional = sample("", seed=seed, steps=8, cfg=1)
        for i, cfg in enumerate((1, 3, 8)):
            latent = sample(seed=seed, steps=8, cfg=cfg, sampler="euler")
            far[seed, i] = distance(latent, unconditional)
            colours[seed, i] = np.ptp(model.decode(latent), axis=-1).mean()
    assert (np.diff(far.mean(0)) > 0).all()
    assert (np.diff(colours.mean(0)) > 0).all()


def test_guidance_is_linear_and_padding_of_the_shorter_text_has_no_effect(model):
    x = np.random.default_rng(0).standard_normal((1, 8, 8, 8))
    short, long = model.conditioning("a fox"), model.conditioning("a big old red barn on the farm")
    plain_short, plain_long = (model._guided(text, text, 1)(x, 1.0) for text in (short, long))
    expected = plain_long + (plain_short - plain_long) * 4
    assert distance(model._guided(short, long, 4)(x, 1.0), expected) < 1e-4


@pytest.fixture(scope="module")
def brightness(model, sample):
    def brightness(prompt, negative=""):
        """Mean brightness of one picture for each of six seeds."""
        options = {"steps": 6, "side": 128, "sampler": "euler"}
        latents = [sample(prompt, negative, seed=seed, **options) for seed in range(6)]
        return np.array([model.decode(latent).mean() for latent in latents])

    return brightness


def test_a_night_is_darker_than_a_noon(brightness):
    house = "a house in the village at "
    darker = brightness(house + "noon") - brightness(house + "night")
    assert darker.mean() > 0.05
    assert (darker > 0).sum() >= 5


def test_night_as_negative_prompt_brightens(brightness):
    brighter = brightness("a cat", "night") - brightness("a cat")
    assert brighter.mean() > 0.05
    assert (brighter > 0).sum() >= 5


# ---- steps and samplers -------------------------------------------------------------------


@pytest.fixture(scope="module")
def ends(sample):
    """Where every sampler ends with many steps from the same start."""
    return {name: sample(steps=32, sampler=name) for name in SAMPLERS}


@pytest.mark.parametrize("sampler", sorted(set(SAMPLERS) - {"euler_ancestral"}))
def test_more_steps_converge(sample, ends, sampler):
    few, some = (distance(sample(steps=n, sampler=sampler), ends[sampler]) for n in (4, 16))
    assert some < few / 4


def test_deterministic_samplers_walk_the_same_way(ends):
    assert distance(ends["euler"], ends["ddim"]) < 1e-4
    assert distance(ends["heun"], ends["dpmpp_2m"]) < 0.05
    assert distance(ends["euler"], ends["heun"]) < 0.15


def test_euler_ancestral_does_not_converge_to_euler(ends):
    assert distance(ends["euler"], ends["euler_ancestral"]) > 0.3


# ---- sizes and starts ---------------------------------------------------------------------


def test_size_gives_the_shape(model, sample):
    latent = sample(latent=model.empty_latent(96, 64), steps=1)
    assert latent.shape == (1, 8, 8, 12)
    picture = model.decode(latent)
    assert picture.shape == (1, 64, 96, 3)
    assert picture.dtype == np.float32
    assert 0 <= picture.min() < picture.max() <= 1


@pytest.mark.parametrize(("width", "height"), [(104, 64), (64, 32), (544, 64), (64, 0)])
def test_a_wrong_size_is_refused_by_every_door(model, sample, width, height):
    says = f"{width} x {height}.*multiple of 32 from 64 to 512"
    with pytest.raises(ValueError, match=says):
        model.empty_latent(width, height)
    with pytest.raises(ValueError, match=says):
        model.encode(np.zeros((1, height, width, 3), np.float32))
    wrong = np.zeros((1, 8, height // 8, width // 8), np.float32)
    with pytest.raises(ValueError, match="multiple of 32"):
        model.decode(wrong)
    with pytest.raises(ValueError, match="multiple of 32"):
        sample(latent=wrong)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"sampler": "lms"}, "unknown sampler 'lms'.*dpmpp_2m"),
        ({"scheduler": "beta"}, "unknown scheduler 'beta'.*karras"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"steps": 0}, "steps"),
        ({"denoise": 1.1}, "denoise"),
        ({"latent": np.zeros((1, 4, 8, 8), np.float32)}, r"\(batch, 8, h, w\)"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(sample, options, says):
    with pytest.raises(ValueError, match=says):
        sample(**options)


def test_less_denoise_stays_closer_to_the_source(model, sample, source):
    distances = [
        np.mean([
            distance(source, sample(latent=source, denoise=denoise, seed=seed, steps=6))
            for seed in range(3)
        ])
        for denoise in (0.0, 0.3, 0.6, 0.9)
    ]  # fmt: skip
    assert distances[0] == 0
    assert distances == sorted(distances)
    assert distances[1] < distances[3] / 2


def test_encoding_a_decoded_picture_finds_the_latent_again(model, source):
    picture = model.decode(source)
    again = model.decode(model.encode(picture))
    assert model.encode(picture).shape == source.shape
    assert 10 * np.log10(1 / np.mean((picture - again) ** 2)) > 25  # dB


# ---- previews and progress ----------------------------------------------------------------


def test_a_preview_is_the_picture_in_small(model, source):
    preview = model.preview(source[0])
    assert preview.dtype == np.uint8
    small = model.decode(source)[0].reshape(16, 8, 16, 8, 3).mean((1, 3))
    assert preview.shape == small.shape
    assert np.corrcoef(preview.ravel(), small.ravel())[0, 1] > 0.9


def test_previews_approach_the_picture(model, sample):
    steps = 9
    away = np.zeros((20, steps))
    for seed in range(20):
        previews = []

        def keep(_step, _steps, guess, previews=previews):
            previews.append(model.preview(guess[0]))

        final = sample(seed=seed, steps=steps, on_step=keep)
        small = model.decode(final)[0].reshape(8, 8, 8, 8, 3).mean((1, 3))
        away[seed] = [distance(preview / 255, small) for preview in previews]
    first, middle, last = away.mean(0).reshape(3, 3).mean(1)
    assert first > middle > last
    assert first > 1.5 * last


def test_an_interrupted_sampling_asks_no_more_and_the_model_goes_on(model, sample):
    told = []

    def interrupt(step, steps, guess):
        told.append((step, steps, guess.shape, guess.dtype))
        if step == 1:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        sample(on_step=interrupt)
    assert told == [(i, 4, (1, 8, 8, 8), np.float32) for i in range(2)]
    assert np.isfinite(sample()).all()


# ---- words --------------------------------------------------------------------------------


def test_unknown_words_come_with_the_conditioning(model):
    conditioning = model.conditioning("a fox playing the didgeridoo")
    assert conditioning.unknown_words == ("didgeridoo",)
    assert conditioning.cond.shape == (1, conditioning.mask.shape[1], 192)
    assert conditioning.mask.all()


# ---- the version --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sampler", "means"),
    [
        ("euler", [0.449, 0.573, 0.286, -0.289, -0.327, -0.214, -0.735, -0.119]),
        ("euler_ancestral", [0.502, -0.402, 0.206, 1.475, -0.209, 1.42, 0.89, 0.247]),
        ("heun", [0.138, 1.023, 0.231, -0.929, -0.62, -0.476, -1.213, -0.067]),
        ("dpmpp_2m", [0.378, 0.911, 0.276, -0.616, -0.523, -0.31, -1.017, -0.096]),
        ("ddim", [0.449, 0.573, 0.286, -0.289, -0.327, -0.214, -0.735, -0.119]),
    ],
)
def test_results_are_those_of_version_1(model, sample, sampler, means):
    # Where this fails by intent, raise "version" in model.json: keys of stored pictures hang on it.
    assert model.info["version"] == 1
    latent = sample(steps=6, sampler=sampler)
    assert latent[0].mean((1, 2)) == pytest.approx(means, abs=0.01)
