"""Radiometric JPEGs as FLIR cameras write them, of a field whose temperatures are known."""

import struct

import cv2
import imagecodecs
import numpy as np

from sartm.io.flir import Radiometry

CALIBRATION = Radiometry(
    r1=16528.2, r2=0.0122586, b=1427.5, f=1.0, o=-1307, emissivity=0.95, reflected=293.15,
    distance=2.0, air=291.15, humidity=0.4,
)  # fmt: skip


def field(height=48, width=64):
    """A smooth scene in degrees Celsius, 5-45, with a warm body and a warm box."""
    y, x = np.mgrid[:height, :width]
    warm = 12 + 8 * x / width + 22 * np.exp(-((x - 20) ** 2 + (y - 24) ** 2) / 60)
    warm[10:22, 40:54] = 33 + 4 * np.sin(x[10:22, 40:54] / 3)
    return warm


def counts_of(celsius, calibration=CALIBRATION):
    """What the camera counts: the object's radiation, weakened, with reflections and the air's."""
    c, tau = calibration, calibration.transmission()
    planck = c.r1 / (c.r2 * (np.exp(c.b / (celsius + 273.15)) - c.f)) - c.o
    counts = c.emissivity * tau * planck
    counts += (1 - c.emissivity) * tau * c.counts_of(c.reflected)
    counts += (1 - tau) * c.counts_of(c.air)
    return np.rint(counts).astype(np.uint16)


def camera_record(c, order):
    record = bytearray(0x400)
    numbers = {
        0x20: c.emissivity, 0x24: c.distance, 0x28: c.reflected, 0x2C: c.air, 0x30: 293.15,
        0x34: 1.0, 0x3C: c.humidity, 0x58: c.r1, 0x5C: c.b, 0x60: c.f, 0x70: c.alpha[0],
        0x74: c.alpha[1], 0x78: c.beta[0], 0x7C: c.beta[1], 0x80: c.mix, 0x30C: c.r2,
    }  # fmt: skip
    struct.pack_into(f"{order}H", record, 0, 2)
    for offset, value in numbers.items():
        struct.pack_into(f"{order}f", record, offset, value)
    struct.pack_into(f"{order}i", record, 0x308, int(c.o))
    return bytes(record)


def raw_record(counts, kind, order):
    if kind == "png little":  # as most cameras write it: the bytes the wrong way round
        body = cv2.imencode(".png", counts.byteswap())[1].tobytes()
    elif kind == "png big":
        body = cv2.imencode(".png", counts)[1].tobytes()
    elif kind == "jpeg-ls":
        body = imagecodecs.jpegls_encode(counts)
        body = body[:2] + body[body.index(b"\xff\xf7") :]  # cameras write no SPIFF header
    elif kind == "tiff":
        body = cv2.imencode(".tiff", counts)[1].tobytes()
    else:
        body = counts.astype(f"{order}u2").tobytes()
    head = struct.pack(f"{order}HHH", 2, counts.shape[1], counts.shape[0])
    return head.ljust(32, b"\0") + body


def file_of_records(counts, kind="plain", calibration=CALIBRATION, order="<", moment=None):
    """A file `FFF`: what a radiometric JPEG carries, and a frame of SEQ and CSQ."""
    camera = bytearray(camera_record(calibration, order))
    if moment is not None:
        whole = int(moment)
        struct.pack_into(f"{order}IIh", camera, 900, whole, round(1000 * (moment - whole)), -60)
    records = [(1, raw_record(counts, kind, order)), (0x20, bytes(camera))]
    directory, place, bodies = b"", 64 + 32 * len(records), b""
    for number, body in records:
        directory += struct.pack(">HHIIII", number, 1, 100, 1, place, len(body)).ljust(32, b"\0")
        bodies, place = bodies + body, place + len(body)
    head = b"FFF\0" + b"TEST".ljust(16, b"\0") + struct.pack(">III", 100, 64, len(records))
    return head.ljust(64, b"\0") + directory + bodies


def write_flir(path, counts, kind="png little", calibration=CALIBRATION, order="<", chunk=3000):
    """A radiometric JPEG: a small false-colour picture, and the FLIR file in several segments."""
    flir = file_of_records(counts, kind, calibration, order)
    parts = [flir[start : start + chunk] for start in range(0, len(flir), chunk)]
    segments = b""
    for index, part in enumerate(parts):
        body = b"FLIR\0\x01" + bytes([index, len(parts) - 1]) + part
        segments += b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:, 32:] = (20, 90, 250)
    jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
    path.write_bytes(jpeg[:2] + segments + jpeg[2:])
    return path
