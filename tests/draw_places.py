"""Pictures that say where they were taken: JPEG with GPS as drones write it, GeoTIFF."""

from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

GEO = {"model": 1024, "raster": 1025, "geographic": 2048, "projected": 3072}


def angle(value: float) -> tuple[float, float, float]:
    degrees = int(abs(value))
    minutes = int((abs(value) - degrees) * 60)
    return float(degrees), float(minutes), (abs(value) - degrees - minutes / 60) * 3600


def write_shot(
    path: Path,
    image: np.ndarray,
    latitude: float | None,
    longitude: float | None,
    xmp: dict[str, float] | None = None,
    focal_35mm: int | None = None,
    taken: str = "2026:07:14 13:05:59",
    **gps,
) -> None:
    """A JPEG with EXIF, and XMP of DJI's names."""
    exif = Image.Exif()
    where = exif.get_ifd(0x8825)
    if latitude is not None:
        where.update({1: "N" if latitude >= 0 else "S", 2: angle(latitude),
                      3: "E" if longitude >= 0 else "W", 4: angle(longitude)})  # fmt: skip
    where.update({int(code[1:]): value for code, value in gps.items()})
    camera = exif.get_ifd(0x8769)
    camera[0x9003] = taken
    if focal_35mm is not None:
        camera[0xA405] = focal_35mm
    names = "".join(f' drone-dji:{name}="{value:+.2f}"' for name, value in (xmp or {}).items())
    text = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description{names}/></x:xmpmeta>'
    Image.fromarray(image).save(path, quality=95, exif=exif, xmp=text.encode())


def write_geotiff(
    path: Path, image: np.ndarray, corner: tuple[float, float], step: float, epsg: int, **more
) -> None:
    """North up: `corner` is x and y of the upper left one, `step` of a pixel."""
    projected = epsg != 4326
    keys = [1, 1, 0, 3, GEO["model"], 0, 1, 1 if projected else 2, GEO["raster"], 0, 1, 1,
            GEO["projected" if projected else "geographic"], 0, 1, epsg]  # fmt: skip
    extra = [
        (33550, 12, 3, (step, step, 0.0), True),
        (33922, 12, 6, (0.0, 0.0, 0.0, *corner, 0.0), True),
        (34735, 3, len(keys), tuple(keys), True),
        (42113, 2, 6, "-9999", True),
    ]
    tifffile.imwrite(path, image, extratags=extra, metadata=None, compression="zlib", **more)
