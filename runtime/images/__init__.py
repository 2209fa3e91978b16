"""Still images: read, held and written with everything that belongs to them."""

from __future__ import annotations

from uare_rt.images.formats import READ_SUFFIXES, WRITE_FORMATS, is_image, list_images
from uare_rt.images.picture import Metadata, Picture
from uare_rt.images.reading import MAX_PIXELS, read_image
from uare_rt.images.writing import check_format, write_image

__all__ = [
    "MAX_PIXELS",
    "READ_SUFFIXES",
    "WRITE_FORMATS",
    "Metadata",
    "Picture",
    "check_format",
    "is_image",
    "list_images",
    "read_image",
    "write_image",
]
