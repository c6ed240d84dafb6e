#!/usr/bin/env python3
"""Makes the vectors of the state digest and the metadata digest: python3 make_vectors.py

Written from the definition alone, with no regard to the TypeScript. Each vector is a tree described in JSON and the
digests of every directory in it. In the description, `name`, `target`, attribute names and values and file contents
are base64 of raw bytes (`content_zeros` stands for that many zero bytes); `group` names a hard-link group.
"""
import base64, hashlib, json, os, struct

HERE = os.path.dirname(os.path.abspath(__file__))


def b64(b):
    return base64.b64encode(b).decode()


def raw(text):
    return base64.b64decode(text)


def lp(b):
    return struct.pack("<I", len(b)) + b


def contents(entry):
    return raw(entry["content"]) if "content" in entry else bytes(entry["content_zeros"])


def kids(directory):
    return sorted(directory["entries"], key=lambda e: raw(e["name"]))


def preorder(directory, prefix=b""):
    for entry in kids(directory):
        path = prefix + raw(entry["name"])
        yield path, entry
        if entry["type"] == "d":
            yield from preorder(entry, path + b"/")


def first_members(root):
    groups = {}
    for path, entry in preorder(root):
        if "group" in entry:
            groups.setdefault(entry["group"], []).append(path)
    return {name: paths[0] for name, paths in groups.items() if len(paths) > 1}


def digested(name):
    return name.startswith(b"user.") or name.startswith(b"system.posix_acl_") or name == b"security.capability"


def node(directory, meta, firsts, path, nodes):
    out = [b"cairn.meta.v1\n" if meta else b"cairn.state.v1\n", struct.pack("<I", len(directory["entries"]))]
    for entry in kids(directory):
        name, kind = raw(entry["name"]), entry["type"]
        child = path + b"/" + name if path else name
        out.append(kind.encode() + lp(name) + struct.pack("<I", entry["mode"]))
        if kind == "f":
            data = contents(entry)
            out.append(struct.pack("<Q", len(data)) + hashlib.sha256(data).digest())
        elif kind == "d":
            out.append(node(entry, meta, firsts, child, nodes))
        elif kind == "l":
            out.append(lp(raw(entry["target"])))
        elif kind in "cb":
            out.append(struct.pack("<II", *entry["device"]))
        if not meta:
            continue
        out.append(struct.pack("<qIII", int(entry["mtime"][0]), entry["mtime"][1], entry["uid"], entry["gid"]))
        attributes = sorted((raw(n), raw(v)) for n, v in entry["xattrs"])
        attributes = [(n, v) for n, v in attributes if digested(n)]
        out.append(struct.pack("<I", len(attributes)) + b"".join(lp(n) + lp(v) for n, v in attributes))
        first = firsts.get(entry.get("group"))
        out.append(b"\0" if first is None else b"\1" + lp(first))
    digest = hashlib.sha256(b"".join(out)).digest()
    nodes[b64(path)] = digest.hex()
    return digest


def entry(kind, name, mode=0o644, mtime=(1700000000, 0), uid=0, gid=0, xattrs=(), **more):
    name = name if isinstance(name, bytes) else name.encode()
    return {"type": kind, "name": b64(name), "mode": mode, "mtime": [str(mtime[0]), mtime[1]], "uid": uid, "gid": gid,
            "xattrs": [[b64(n), b64(v)] for n, v in xattrs], **more}


def f(name, content=b"", **more):
    if isinstance(content, int):
        return entry("f", name, content_zeros=content, **more)
    return entry("f", name, content=b64(content), **more)


def d(name, *entries, mode=0o755, **more):
    return entry("d", name, mode=mode, entries=list(entries), **more)


def link(name, target, mode=0o777, **more):
    return entry("l", name, mode=mode, target=b64(target), **more)


def device(kind, name, major, minor, **more):
    return entry(kind, name, device=[major, minor], **more)


VECTORS = {
    "empty": d(""),
    "one-file": d("", f("a.txt", b"hello\n")),
    "empty-file-and-directory": d("", f("empty"), d("dir")),
    "every-type": d(
        "", f("file", b"content", mode=0o640), d("dir", f("inside", b"x")), link("link", b"../target"), entry("p", "pipe", 0o600),
        entry("s", "socket", 0o755), device("c", "char", 1, 3, mode=0o666), device("b", "block", 259, 1048575, mode=0o660),
        device("c", "large", 4095, 4294967295)),
    "modes": d(
        "", f("suid", b"x", mode=0o4755), f("sgid", b"x", mode=0o2755), d("sticky", mode=0o1777), f("none", b"x", mode=0),
        f("all", b"x", mode=0o7777)),
    "odd-names": d(
        "", f(b"\xff\xfe", b"1"), f(b"\x01\n\t", b"2"), f("\u00e9", b"3"), f("e\u0301", b"4"), f("\U0001f600", b"5"),
        f(b"\xed\xa0\x80", b"6"), f('"\\', b"7"), f(b"a" * 255, b"8"), f(b" ", b"9"), f(b"-", b"10"), link("to-raw", b"\xff/\x00"[:2])),
    "order": d(
        "", f("b", b"1"), f("a", b"2"), f("B", b"3"), f("a-b", b"4"), d("a.d", f("x", b"5")), f("aa", b"6"), f(b"a\xff", b"7"),
        f(b"a\x01", b"8"), f("10", b"9"), f("9", b"10")),
    "times": d(
        "", f("epoch", b"", mtime=(0, 0)), f("before", b"", mtime=(-1, 999999999)), f("long-before", b"", mtime=(-62135596801, 1)),
        f("far", b"", mtime=(253402300800, 999999999)), f("farther", b"", mtime=(1 << 40, 5)), link("l", b"t", mtime=(5, 6)),
        d("d", mtime=(-7, 8))),
    "owners": d("", f("nobody", b"", uid=65534, gid=65534), f("max", b"", uid=4294967295, gid=4294967294), d("d", uid=1000, gid=100)),
    "attributes": d(
        "", f("many", b"x", xattrs=[(b"user.b", b"2"), (b"user.a", b"1"), (b"user.empty", b""), (b"user.\xff", bytes(range(256)))]),
        f("acl", b"x", xattrs=[(b"system.posix_acl_access", b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff")]),
        f("capability", b"x", xattrs=[(b"security.capability", b"\1\0\0\2"), (b"security.selinux", b"not digested\0")]),
        f("recorded-only", b"x", xattrs=[(b"trusted.overlay.opaque", b"y"), (b"security.ima", b"z"), (b"userx", b"no")]),
        d("dir", xattrs=[(b"user.dir", b"yes"), (b"system.posix_acl_default", b"\x02\0\0\0")])),
    "hard-links": d(
        "", f("z-first-by-name-not", b"same", group="one"), d("a", f("member", b"same", group="one"), d("b", f("deep", b"same", group="one"))),
        d("a-b", f("x", b"other", group="two")), f("a.x", b"other", group="two"), f("alone", b"outside", group="three"),
        entry("p", "pipe1", group="four"), entry("p", "pipe2", group="four"), link("link1", b"t", group="five"), link("link2", b"t", group="five")),
    "sparse": d("", f("zeros", 3 * 1024 * 1024), f("one", 1)),
    "same-content-other-shape": d("", d("d", d("d", d("d", f("x", b"x"))))),
    "deep": d("", d("1", d("2", d("3", d("4", f("leaf", b"leaf", mtime=(1, 2)), link("up", b"../../../..")), f("n3", b"3")), f("n2", b"2")), f("n1", b"1"))),
    "many": d("", *[f("file-%04d" % i, b"%d" % (i % 7), mode=0o600 + i % 64, mtime=(1600000000 + i * 1000, i * 12345 % 1000000000)) for i in range(300)]),
}

for name, root in VECTORS.items():
    firsts = first_members(root)
    state_nodes, meta_nodes = {}, {}
    state = node(root, False, firsts, b"", state_nodes)
    meta = node(root, True, firsts, b"", meta_nodes)
    vector = {"root": {"entries": root["entries"]}, "state_digest": state.hex(), "metadata_digest": meta.hex(),
              "state_nodes": state_nodes, "metadata_nodes": meta_nodes}
    with open(os.path.join(HERE, name + ".json"), "w") as out:
        json.dump(vector, out, indent=1, sort_keys=True)
        out.write("\n")
