"""The names that ComfyUI 0.3.75 imports."""


class _Missing:
    def __init__(self, *_: object, **__: object) -> None:
        raise RuntimeError("torchvision is not installed for the tests")


Normalize = Resize = Compose = InterpolationMode = _Missing
