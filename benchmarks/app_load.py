"""Load on `sartm app`: many clients at once, memory after each round, what is refused.

    python benchmarks/app_load.py [--model M] [--requests 200] [--size 96x128]

Starts the service in a process of its own on this machine's loopback and stops it at the end.
"""

import argparse
import http.client
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np

HEAD = b'--x\r\nContent-Disposition: form-data; name="%s"; filename="a.png"\r\n\r\n'


def draw_body(size: tuple[int, int]) -> bytes:
    """A multipart form with an RGB and a thermal PNG."""
    draw = np.random.default_rng(0)
    small = draw.integers(0, 255, (12, 16, 3), np.uint8)
    rgb = cv2.resize(small, size[::-1], interpolation=cv2.INTER_CUBIC)
    parts = []
    for name, image in ((b"rgb", rgb), (b"thermal", rgb[..., 1])):
        parts.append(HEAD % name + cv2.imencode(".png", image)[1].tobytes() + b"\r\n")
    return b"".join(parts) + b"--x--\r\n"


def run_client(port: int, body: bytes, count: int, statuses: Counter[int]) -> None:
    """`count` requests on one connection, one after another."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    for _ in range(count):
        connection.request("POST", "/v1/segment", body, headers)
        answer = connection.getresponse()
        answer.read()
        statuses[answer.status] += 1
    connection.close()


def run_round(port: int, body: bytes, clients: int, count: int) -> dict[str, object]:
    """All clients at once; statuses and requests per second."""
    statuses: Counter[int] = Counter()
    work = (port, body, count, statuses)
    threads = [threading.Thread(target=run_client, args=work) for _ in range(clients)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - begun
    done = dict(sorted(statuses.items()))
    return {"clients": clients, "statuses": done, "per_second": round(done[200] / seconds, 2)}


def memory(process: int) -> float:
    """Resident memory in MiB."""
    text = Path(f"/proc/{process}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", text)
    assert found
    return int(found[1]) / 1024


def start_service(model: str) -> tuple[subprocess.Popen[str], int]:
    """The process and the port it says it listens on."""
    command = [sys.executable, "-m", "sartm", "app", "--port", "0", "--device", "cpu"]
    command += ["--model", model] if model else []
    service = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    assert service.stderr
    for line in service.stderr:
        found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        if found:
            return service, int(found[1])
    raise SystemExit(f"the service did not start: {' '.join(command)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="", help="as in sartm app; all bundled ones")
    parser.add_argument("--requests", type=int, default=200, help="of each client")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--crowd", type=int, default=64, help="clients of the last round")
    parser.add_argument("--size", default="96x128", help="height x width in pixels")
    options = parser.parse_args()
    height, width = map(int, options.size.split("x"))
    body = draw_body((height, width))
    service, port = start_service(options.model)
    try:
        run_round(port, body, 1, 5)
        rounds = []
        for clients, count in (
            (options.clients, options.requests),
            (options.clients, options.requests),
            (options.crowd, max(1, options.requests // 10)),
        ):
            row = run_round(port, body, clients, count) | {"mib": round(memory(service.pid), 1)}
            print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
            rounds.append(row)
    finally:
        service.terminate()
        service.wait(20)
    growth = float(rounds[1]["mib"]) - float(rounds[0]["mib"])  # type: ignore[arg-type]
    print(json.dumps({"size": options.size, "rounds": rounds, "growth_mib": round(growth, 1)}))


if __name__ == "__main__":
    main()
