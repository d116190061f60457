#!/usr/bin/env python3
"""An independent reader of one segment, written from docs/FORMAT.md alone.

Prints one JSON object a line: the header, each frame with its record or events, the verdict.
Bytes are printed in hexadecimal. It stops at the first bad frame and does not judge it.
"""
import json
import sys
import zlib

KINDS = ["put", "ack", "routes", "seal", "claimed", "done", "abandon", "fence", "incarnation",
         "watermark", "snapshot", "segment_seal"]


class Body:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        if self.at + count > len(self.data):
            raise ValueError(f"field at {self.at} reaches beyond the body")
        self.at += count
        return self.data[self.at - count:self.at]

    def fixed(self, count):
        return int.from_bytes(self.take(count), "little")

    def number(self):
        value = shift = 0
        while True:
            byte = self.fixed(1)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if (byte == 0 and shift) or value >> 64:
                    raise ValueError(f"bad varint before {self.at}")
                return value
            shift += 7
            if shift > 63:
                raise ValueError(f"bad varint before {self.at}")

    def bytes(self):
        return self.take(self.number())

    def text(self):
        return self.bytes().decode("utf-8")

    def flag(self):
        value = self.fixed(1)
        if value > 1:
            raise ValueError(f"bad flag before {self.at}")
        return value == 1

    def list(self, element):
        return [element(self) for _ in range(self.number())]

    def finish(self):
        if self.at != len(self.data):
            raise ValueError(f"left-over bytes from {self.at}")


def run(b):
    first = b.number()
    return [first, first + b.number()]


def part(b):
    return {"staged_name": b.text(), "final_path": b.text(), "count": b.number(),
            "length": b.number(), "crc32": b.fixed(4)}


def epoch(b):
    return {"epoch": b.number(), "range": run(b), "claimed": b.flag(), "sink": b.text(),
            "store": b.text(), "base": b.text(), "attempt": b.text(), "parts": b.list(part)}


def identity(b):
    return {"inode": b.fixed(8), "filesystem": b.fixed(8), "machine": b.fixed(8)}


def segment_ref(b):
    return {"segment": b.number(), "salt": b.fixed(8), "first_sequence": b.number(),
            "end": b.number()}


def incarnation(b):
    return {"incarnation": b.number(), "nonce": b.fixed(8), "identity": identity(b),
            "opened_at_ms": b.number(), "previous": segment_ref(b) if b.flag() else None}


def producer(b):
    return {"id": b.bytes().hex(), "epoch": b.number(), "last": b.number()}


def route(b):
    return {"first_index": b.number(), "count": b.number(), "channels": b.list(Body.text)}


def routes(b):
    return {"batch": b.number(), "fingerprint": b.fixed(8), "routes": b.list(route)}


def position(b):
    return [b.bytes().hex(), b.bytes().hex()]


def snapshot(b):
    return {"acked_below": b.number(), "acked": b.list(run), "lost": b.list(run),
            "positions": b.list(position), "producers": b.list(producer),
            "routes": b.list(routes), "incarnation": b.number(),
            "incarnations": b.list(lambda c: [c.number(), c.fixed(8)]),
            "fenced_through": b.number(), "identity": identity(b), "next_epoch": b.number(),
            "epochs": b.list(epoch), "segments": b.list(segment_ref), "control_lost": b.flag()}


RECORDS = {
    "ack": lambda b: {"ranges": b.list(run)},
    "routes": routes,
    "seal": epoch,
    "claimed": epoch,
    "done": lambda b: {"epoch": b.number()},
    "abandon": lambda b: {"epoch": b.number()},
    "fence": lambda b: {"through": b.number()},
    "incarnation": incarnation,
    "watermark": lambda b: {},
    "snapshot": snapshot,
    "segment_seal": lambda b: {"frames": b.number(), "next_sequence": b.number()},
}


def put(data, count):
    table_length = int.from_bytes(data[-4:], "little")
    if len(data) < 4 or table_length > len(data) - 4:
        raise ValueError("position table longer than the body")
    split = len(data) - 4 - table_length
    b, events, last = Body(data[:split]), [], None
    for _ in range(count):
        headers = b.list(lambda c: [c.text(), c.text()])
        tag = b.number()
        if tag == 1:
            step = b.number()
            last = (last[0], (last[1] + ((step >> 1) ^ -(step & 1))) % (1 << 64))
        elif tag > 1:
            last = (tag - 2, b.number())
        events.append({"headers": headers, "position": list(last) if tag else None,
                       "body": b.bytes().hex()})
    b.finish()
    table, positions = Body(data[split:-4]), []
    while table.at < len(table.data):
        positions.append(position(table))
    return {"events": events, "positions": positions}


def header(block):
    b = Body(block)
    if b.take(8) != b"FOREBAYL":
        raise ValueError("not a segment")
    if b.fixed(4) != zlib.crc32(block[12:4096]):
        raise ValueError("segment header: bad checksum")
    names = [("version", 2), ("cipher_id", 2), ("incompatible", 4), ("compatible", 4)]
    found = {name: b.fixed(size) for name, size in names}
    found["channel_id"] = b.take(16).hex()
    names = [("segment", 4), ("size", 4), ("salt", 8), ("prepared_at_ms", 8), ("key_id", 4),
             ("compression_id", 2)]
    found.update({name: b.fixed(size) for name, size in names})
    if found["version"] != 1 or found["incompatible"] or found["cipher_id"]:
        raise ValueError("segment of a newer format")
    return found


def frame(data, at, end, segment, salt):
    """The frame at `at`, or None where there is no good one."""
    raw = data[at:at + 64]
    lsn = segment << 32 | at
    seed = salt.to_bytes(8, "little") + lsn.to_bytes(8, "little")
    if at + 64 > end or int.from_bytes(raw[:4], "little") != zlib.crc32(seed + raw[4:]):
        return None
    b = Body(raw[4:])
    kind, flags, compression, reserved = b.take(4)
    if not 1 <= kind <= 12 or flags > 3 or compression or reserved or (kind > 1 and flags != 3):
        return None
    length, body_sum, sequence, count = b.fixed(4), b.fixed(4), b.fixed(8), b.fixed(4)
    if b.fixed(4):
        return None
    control, put_time_ms, watermark, last = b.fixed(8), b.fixed(8), b.fixed(8), b.fixed(8)
    body = data[at + 64:at + 64 + length]
    if last or (kind > 1 and count) or at + 64 + length > end or zlib.crc32(body) != body_sum:
        return None
    name = KINDS[kind - 1]
    if kind == 1:
        content = put(body, count)
    else:
        b = Body(body)
        content = RECORDS[name](b)
        b.finish()
    return {"lsn": lsn, "kind": name, "first": flags & 1 == 1, "last": flags & 2 == 2,
            "sequence": sequence, "count": count, "control": control,
            "put_time_ms": put_time_ms, "watermark": watermark, "content": content,
            "next": (at + 64 + length + 7) // 8 * 8}


def main(path):
    with open(path, "rb") as file:
        data = file.read()
    try:
        head = header(data[:4096])
    except ValueError:
        head = header(data[-4096:])
    print(json.dumps(head))
    at, end = 4096, head["size"] - 4096
    while (found := frame(data, at, end, head["segment"], head["salt"])) is not None:
        at = found.pop("next")
        print(json.dumps(found))
    print(json.dumps({"end": at, "only_zeros_follow": not any(data[at:end])}))


if __name__ == "__main__":
    main(sys.argv[1])
