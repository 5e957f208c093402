"""A small dataset of conversations about plain pictures: none, one or two to a sample, of several shapes."""

from pathlib import Path

from PIL import Image

COLORS = ("red", "green", "blue", "yellow", "purple")


class Pictures:
    """Plain pictures of one color in several shapes, some questions without a picture, one with two."""

    def __init__(self, folder, count=23, pictures=(1, 1, 1, 2, 0), prefix="picture"):
        self.folder, self.count, self.pictures, self.prefix = Path(folder), count, pictures, prefix
        self.folder.mkdir(parents=True, exist_ok=True)
        for i, color in enumerate(COLORS):
            if not (file := self.folder / f"{color}.png").exists():
                Image.new("RGB", (40 + 7 * i, 60 - 5 * i), color).save(file)

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if not 0 <= index < self.count:
            raise IndexError(index)
        number = self.pictures[index % len(self.pictures)]
        colors = [COLORS[(index + i) % 5] for i in range(number)]
        parts = [{"type": "image"}] * len(colors) + [{"type": "text", "text": "Describe the picture."}]
        answer = f"There is {' and '.join(colors) or 'no picture'}."
        return {
            "id": f"{self.prefix}-{index}",
            "source": "test",
            "messages": [
                {"role": "user", "content": parts},
                {"role": "assistant", "content": [{"type": "text", "text": answer}]},
            ],
            "images": [str(self.folder / f"{color}.png") for color in colors],
        }
