#!/usr/bin/env python3
"""Makes the golden files of this folder with real restic: backs up a directory of odd entries and stores its
tree, and beside it what the operating system says about the same entries. Needs root and a scratch folder:

    python3 make_golden.py SCRATCH
"""
import base64, ctypes, json, os, socket, stat, struct, subprocess, sys

scratch = os.path.abspath(sys.argv[1])
here = os.path.dirname(os.path.abspath(__file__))
root = os.path.join(scratch, "odd").encode()
repo = os.path.join(scratch, "repo")
os.makedirs(root, exist_ok=True)
env = dict(os.environ, RESTIC_PASSWORD="golden", RESTIC_REPOSITORY=repo, TZ="UTC", RESTIC_CACHE_DIR=scratch + "/cache")


def restic(*args, binary=False):
    out = subprocess.run(["restic", *args], env=env, check=True, stdout=subprocess.PIPE).stdout
    return out if binary else out.decode()


NAMES = [
    b"plain.txt", b"with space", b"<html>&amp;", b'quote"and\\backslash', b"single'quote", b"tab\tnewline\nreturn\r",
    b"bell\x07back\x08feed\x0cvertical\x0b", b"control\x01\x1f\x7f", b"invalid\xff\xfe", b"overlong\xc0\x80",
    b"surrogate\xed\xa0\x80", b"truncated\xe2\x82", "caf\u00e9".encode(), "cafe\u0301".encode(), "emoji\U0001f600".encode(),
    "soft\u00adhyphen".encode(), "line\u2028paragraph\u2029".encode(), "nbsp\u00a0".encode(), "bom\ufeff".encode(),
    "private\ue000".encode(), "tag\U000e0001".encode(), "replacement\ufffd".encode(), "unassigned\u0378".encode(),
    "cjk\u4e2d\u6587".encode(), "hangul\ud55c".encode(), "rtl\u202e".encode(), "max\U0010ffff".encode(), b"-dash", b"~", b"...",
    b"n" * 255,
]


def times(path, ns, follow=False):
    os.utime(path, ns=(ns, ns), follow_symlinks=follow)


for i, name in enumerate(NAMES):
    path = os.path.join(root, name)
    with open(path, "wb") as f:
        f.write(b"content %d\n" % (i % 3))
    times(path, 1700000000_000000000 + i * 86400_000000000 + (0, 1, 100, 120000000, 999999999)[i % 5])

special = {}
def make(name, ns=1234567890_500000000):
    path = os.path.join(root, name)
    special[name] = ns
    return path

open(make(b"empty"), "wb").close()
open(make(b"mode0"), "wb").close(); os.chmod(os.path.join(root, b"mode0"), 0)
for name, mode in ((b"setuid", 0o4755), (b"setgid", 0o2711), (b"all-bits", 0o7777)):
    open(make(name), "wb").write(b"x"); os.chmod(os.path.join(root, name), mode)
os.mkdir(make(b"sticky")); os.chmod(os.path.join(root, b"sticky"), 0o1777)
os.mkdir(make(b"empty-dir"))
os.mkfifo(make(b"pipe"), 0o640)
os.mknod(make(b"char"), 0o600 | stat.S_IFCHR, os.makedev(1, 3))
os.mknod(make(b"block"), 0o660 | stat.S_IFBLK, os.makedev(259, 70000))
s = socket.socket(socket.AF_UNIX); s.bind(os.path.relpath(make(b"socket").decode())); s.close()
os.symlink(b"plain.txt", make(b"link"))
os.symlink("<\u2028>&\"\\'\t\x01\x7f\ufffd\u00e9".encode(), make(b"link-odd"))
os.symlink(b"../\xff\xfe/x", make(b"link-invalid"))
open(make(b"hard-a"), "wb").write(b"hard"); os.link(os.path.join(root, b"hard-a"), make(b"hard-b"))
open(make(b"attributes"), "wb").write(b"x")
p = os.path.join(root, b"attributes")
for k, v in ((b"user.text", b"value"), (b"user.empty", b""), (b"user.raw", bytes(range(256))), ("user.\u00e9<&>".encode(), b"<>")):
    os.setxattr(p, k, v)
open(make(b"owner"), "wb").write(b"x"); os.chown(os.path.join(root, b"owner"), 1234567, 4294967294)
open(make(b"year-1900", -2208988800_000000001), "wb").write(b"x")
open(make(b"year-2400", 13569465600_123456789), "wb").write(b"x")
open(make(b"epoch", 0), "wb").write(b"x")
with open(make(b"large"), "wb") as f:
    block = b"".join(struct.pack("<I", (i * 2654435761) & 0xffffffff) for i in range(1 << 18))
    for i in range(3):
        f.write(block[i:] + block[:i])
for name, ns in special.items():
    times(os.path.join(root, name), ns)
times(root, 1600000000_000000000)

if not os.path.exists(repo):
    restic("init", "-q")
restic("backup", "-q", root.decode(), "--host", "golden", "--tag", "one,two", "--exclude", "nothing<&>")
sn = json.loads(restic("snapshots", "--json", "latest"))[0]
tree = sn["tree"]
while True:
    raw = restic("cat", "blob", tree, binary=True)
    nodes = json.loads(raw)["nodes"]
    if len(nodes) > 1:
        break
    tree = nodes[0]["subtree"]
open(os.path.join(here, "odd.tree.json"), "wb").write(raw)


def b64(b):
    return base64.b64encode(b).decode()


entries = []
for name in sorted(os.listdir(root)):
    path = os.path.join(root, name)
    st = os.lstat(path)
    fmt = stat.S_IFMT(st.st_mode)
    kind = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "symlink", stat.S_IFBLK: "dev",
            stat.S_IFCHR: "chardev", stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket"}[fmt]
    entries.append({
        "name": b64(name), "type": kind, "mode": stat.S_IMODE(st.st_mode), "mtime_ns": str(st.st_mtime_ns),
        "uid": st.st_uid, "gid": st.st_gid, "inode": str(st.st_ino), "device_id": str(st.st_dev), "links": st.st_nlink,
        "size": st.st_size if kind == "file" else 0,
        "target": b64(os.readlink(path)) if kind == "symlink" else None,
        "rdev": str(st.st_rdev) if kind in ("dev", "chardev") else "0",
        "xattrs": sorted([b64(os.fsencode(k)), b64(os.getxattr(path, k))] for k in os.listxattr(path)) if kind == "file" else [],
    })
json.dump(entries, open(os.path.join(here, "odd.entries.json"), "w"), indent=1)
open(os.path.join(here, "snapshot.json"), "w").write(restic("cat", "snapshot", sn["id"]))
index = restic("list", "index").split()[-1]
open(os.path.join(here, "index.json"), "w").write(restic("cat", "index", index))
open(os.path.join(here, "config.json"), "w").write(restic("cat", "config"))
key = os.listdir(os.path.join(repo, "keys"))[0]
open(os.path.join(here, "key.json"), "w").write(open(os.path.join(repo, "keys", key)).read())
