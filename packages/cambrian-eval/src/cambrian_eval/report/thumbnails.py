"""Pictures as a page holds them: small, in the page itself, each one once however many questions ask about it."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

from cambrian_eval.errors import DataError
from cambrian_eval.report.page import paragraph, text

if TYPE_CHECKING:
    from cambrian_eval.picture import Picture

SIDE = 400
QUALITY = 80


class Thumbnails:
    """Makes the pictures of one page, and keeps them for questions that share them."""

    def __init__(self) -> None:
        self._made: dict[str, str] = {}

    def show(self, picture: Picture, alt: str) -> str:
        """The picture with its alternative text; a sentence where it is not at hand or cannot be decoded."""
        if picture.data is None and picture.path is None:
            return paragraph(f"picture {picture.name}: not at hand; give its data to have it shown", "faint")
        if picture.sha256 not in self._made:
            self._made[picture.sha256] = _make(picture)
        made = self._made[picture.sha256]
        return f'<img alt="{text(alt)}" {made}>' if made.startswith("src=") else made


def _make(picture: Picture) -> str:
    try:
        image = picture.open()
    except (DataError, OSError) as error:  # a file that is gone by now is no reason to lose the page
        return paragraph(str(error), "faint")
    image.thumbnail((SIDE, SIDE))
    encoded = io.BytesIO()
    image.save(encoded, format="JPEG", quality=QUALITY)
    size = f'width="{image.width}" height="{image.height}"'
    return f'src="data:image/jpeg;base64,{base64.b64encode(encoded.getvalue()).decode()}" {size}'
