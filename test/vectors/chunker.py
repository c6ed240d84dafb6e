"""Computes test/vectors/chunker.json from docs/formats/chunking.md alone, without the product's code."""
import hashlib
import hmac
import json
import pathlib

MIN, NORMAL, MAX = 512 * 1024, 1024 * 1024, 8 * 1024 * 1024
STRICT = ((1 << 22) - 1) << 41
LOOSE = ((1 << 18) - 1) << 45


def gear(polynomial):
    key = hmac.new(bytes(32), polynomial.encode("ascii"), hashlib.sha256).digest()
    out, block, number = b"", b"", 1
    while len(out) < 2048:
        block = hmac.new(key, block + b"cairn.gear.v1" + bytes([number]), hashlib.sha256).digest()
        out += block
        number += 1
    return [int.from_bytes(out[at : at + 8], "little") for at in range(0, 2048, 8)]


def lengths(data, table):
    found, start = [], 0
    while start < len(data):
        hash_, end = 0, min(len(data), start + MAX)
        cut = end
        for at in range(start + MIN, end):
            hash_ = (hash_ * 2 + table[data[at]]) & 0xFFFFFFFFFFFFFFFF
            if hash_ & (STRICT if at - start < NORMAL else LOOSE) == 0:
                cut = at + 1
                break
        found.append(cut - start)
        start = cut
    return found


def lcg(seed, count):
    out, state = bytearray(count), seed
    for at in range(count):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        out[at] = state >> 24
    return bytes(out)


def content(recipe):
    kind = recipe["kind"]
    if kind == "lcg":
        return lcg(recipe["seed"], recipe["bytes"])
    period = lcg(recipe["seed"], recipe["period"])
    return (period * (recipe["bytes"] // len(period) + 1))[: recipe["bytes"]]


CASES = [
    ("25b468838dcb75", {"kind": "lcg", "seed": 1, "bytes": 6_000_000}),
    ("3da3358b4dc173", {"kind": "lcg", "seed": 1, "bytes": 6_000_000}),
    ("25b468838dcb75", {"kind": "lcg", "seed": 2, "bytes": 524_289}),
    ("25b468838dcb75", {"kind": "lcg", "seed": 2, "bytes": 524_288}),
    ("25b468838dcb75", {"kind": "lcg", "seed": 2, "bytes": 1}),
    ("25b468838dcb75", {"kind": "period", "seed": 3, "period": 1, "bytes": 9_000_000}),
    ("25b468838dcb75", {"kind": "period", "seed": 4, "period": 700_001, "bytes": 4_000_000}),
]

if __name__ == "__main__":
    cases = []
    for polynomial, recipe in CASES:
        table = gear(polynomial)
        first = [format(value, "016x") for value in table[:2] + table[255:]]
        cases.append({"polynomial": polynomial, "content": recipe, "gear": first, "lengths": lengths(content(recipe), table)})
    target = pathlib.Path(__file__).with_name("chunker.json")
    target.write_text(json.dumps({"comment": "made by chunker.py", "cases": cases}, indent=1) + "\n")
