/** Cairn's service in a guest, a program of Python 3 without packages: docs/formats/machine.md has its protocol. */

const GUEST_SERVICE = String.raw`import base64, fcntl, glob, hashlib, json, os, re, select, signal, socket, stat, struct, subprocess, sys, time

NAME = "org.cairn.identity"
VERSION = 2
INSTANCE = "/var/lib/cairn-guest/instance"
LINE = 128 << 10
PIECE = 32 << 10
# Answers that wait for the host. No command's output is read beyond that.
MOST = 256 << 10
RNDADDENTROPY, RNDRESEEDCRNG = 0x40085203, 0x5207
HAS_SYSTEMD = os.path.isdir("/run/systemd/system")


def run(*line):
    done = subprocess.run(line, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=40)
    if done.returncode != 0:
        raise OSError("%s: %s" % (line[0], done.stderr.decode("utf-8", "replace").strip() or done.returncode))


def systemctl(*line):
    subprocess.run(("systemctl",) + line, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=40)


def remove(*patterns):
    for pattern in patterns:
        for file in glob.glob(pattern):
            if not os.path.isdir(file):
                os.unlink(file)


def write(file, text):
    """In place: the file may be a mount."""
    with open(file, "w") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())


def milliseconds():
    return round(1000 * time.time())


def step_clock(said):
    time.clock_settime(time.CLOCK_REALTIME, time.time() + said["add_ms"] / 1000)


def add_entropy(said):
    drawn = base64.b64decode(said["entropy"])
    fd = os.open("/dev/urandom", os.O_RDWR)
    try:
        fcntl.ioctl(fd, RNDADDENTROPY, struct.pack("ii", 8 * len(drawn), len(drawn)) + drawn)
        fcntl.ioctl(fd, RNDRESEEDCRNG)
    finally:
        os.close(fd)


def set_host_name(said):
    name = said["host_name"]
    if not re.fullmatch("[A-Za-z0-9-]{1,63}", name):
        raise ValueError("no host name")
    before = socket.gethostname()
    socket.sethostname(name)
    write("/etc/hostname", name + "\n")
    if before and os.path.exists("/etc/hosts"):
        with open("/etc/hosts") as opened:
            text = opened.read()
        changed = re.sub(r"(?m)^(127\.0\.1\.1\s.*|::1\s.*)$", lambda row: re.sub(r"(?<![\w.-])%s(?![\w-])" % re.escape(before), name, row[0]), text)
        if changed != text:
            write("/etc/hosts", changed)


def set_machine_id(said):
    wanted = said["machine_id"]
    if not re.fullmatch("[0-9a-f]{32}", wanted):
        raise ValueError("no machine id")
    write("/etc/machine-id", wanted + "\n")
    other = "/var/lib/dbus/machine-id"
    if os.path.isfile(other) and not os.path.islink(other):
        write(other, wanted + "\n")


def new_key(key, kind, *line):
    """Makes a key beside the present one, and then takes its place."""
    made, facts = key + ".cairn", os.stat(key)
    remove(made, made + ".pub")
    run(*line, "-t", kind, "-f", made)
    os.chmod(made, stat.S_IMODE(facts.st_mode))
    os.chown(made, facts.st_uid, facts.st_gid)
    os.rename(made, key)
    if os.path.exists(made + ".pub"):
        os.rename(made + ".pub", key + ".pub")


def renew_host_keys(said):
    for key in glob.glob("/etc/ssh/ssh_host_*_key"):
        new_key(key, os.path.basename(key)[9:-4], "ssh-keygen", "-q", "-N", "", "-C", "root@" + socket.gethostname())
    for key in glob.glob("/etc/dropbear/dropbear_*_host_key"):
        new_key(key, os.path.basename(key)[9:-9], "dropbearkey")
    if HAS_SYSTEMD:
        for unit in ("ssh", "sshd"):
            systemctl("try-reload-or-restart", unit)
        systemctl("try-restart", "dropbear")
        return
    try:
        with open("/run/sshd.pid") as opened:
            os.kill(int(opened.read()), signal.SIGHUP)
    except (OSError, ValueError):
        pass
    for place in glob.glob("/proc/[0-9]*"):
        restart_dropbear(place)


def restart_dropbear(place):
    """The parent of a server is the first process; the parent of a connection is the server."""
    try:
        with open(place + "/cmdline", "rb") as opened:
            line = opened.read().split(b"\0")[:-1]
        with open(place + "/stat") as opened:
            parent = opened.read().rpartition(")")[2].split()[1]
        if not line or os.path.basename(line[0]) != b"dropbear" or parent != "1":
            return
        os.kill(int(place[6:]), signal.SIGTERM)
    except OSError:
        return
    for _ in range(200):
        if not os.path.exists(place + "/exe"):
            break
        time.sleep(0.01)
    subprocess.Popen(line, stdin=subprocess.DEVNULL, start_new_session=True).wait(20)


# Files that cloud-init and others write, in which a device's address may decide what belongs to it.
NETWORKS = ["/etc/netplan/*.yaml", "/etc/systemd/network/*", "/run/systemd/network/*", "/etc/network/interfaces", "/etc/network/interfaces.d/*"]
NETWORKS += ["/etc/sysconfig/network-scripts/ifcfg-*", "/etc/NetworkManager/system-connections/*", "/run/NetworkManager/system-connections/*"]
NETWORKS += ["/etc/udev/rules.d/*persistent-net*"]


def rename_addresses(wanted):
    """The host exchanges the devices after this answer. Their order is that of their places."""
    present = []
    for device in sorted(glob.glob("/sys/class/net/*/device"), key=os.path.realpath):
        with open(os.path.dirname(device) + "/address") as opened:
            present.append(opened.read().strip().lower())
    pairs = {old: new for old, new in zip(present, wanted) if old != new}
    if not pairs or len(present) != len(wanted):
        return
    old = re.compile("|".join(map(re.escape, pairs)), re.I)
    for file in [each for pattern in NETWORKS for each in glob.glob(pattern) if os.path.isfile(each)]:
        with open(file) as opened:
            text = opened.read()
        changed = old.sub(lambda found: pairs[found[0].lower()], text)
        if changed != text:
            write(file, changed)


def renew_dhcp(said):
    rename_addresses(said.get("macs") or [])
    remove("/var/lib/dhcp/*", "/var/lib/dhclient/*", "/var/lib/dhcpcd/*", "/etc/dhcpcd.duid", "/run/systemd/netif/leases/*")
    remove("/var/lib/NetworkManager/*.lease", "/var/lib/NetworkManager/secret_key")
    if HAS_SYSTEMD:
        # A server of ifupdown waits for the link, which comes up after this answer.
        systemctl("--no-block", "try-restart", "systemd-networkd", "NetworkManager", "dhcpcd", "networking")


NEW = [("host_name", set_host_name), ("machine_id", set_machine_id), ("ssh_host_keys", renew_host_keys), ("dhcp", renew_dhcp)]


def record_instance(wanted):
    os.makedirs(os.path.dirname(INSTANCE), exist_ok=True)
    write(INSTANCE, wanted + "\n")


def first_boot(wanted):
    """A clone of a machine that did not run boots with the identity of its source."""
    try:
        with open(INSTANCE) as opened:
            before = opened.read().strip()
    except OSError:
        before = wanted
    if before != wanted:
        for name, work in NEW[1:]:
            try:
                work({"machine_id": wanted})
            except Exception as error:
                print("%s: %s" % (name, error), file=sys.stderr)
    record_instance(wanted)


class Exec:
    """A command. It ends with its first process, also if others keep its output open."""

    def __init__(self, port, said):
        self.port = port
        line = [os.fsencode(word) for word in said["argv"]]
        given = {os.fsencode(name): os.fsencode(value) for name, value in (said.get("env") or {}).items()}
        own = {b"HOME": b"/root", b"USER": b"root", b"LOGNAME": b"root", b"SHELL": b"/bin/sh"}
        own[b"PATH"] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        own.update(given)
        self.waiting, self.ends, self.child, self.outs = bytearray(), False, None, {}
        try:
            pipe = subprocess.PIPE
            self.child = subprocess.Popen(
                line, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, env=own,
                cwd="/root" if os.path.isdir("/root") else "/", start_new_session=True,
            )
        except OSError as error:
            port.data("err", ("%s: %s\n" % (os.fsdecode(line[0]), error.strerror)).encode())
            port.done({"status": 127 if isinstance(error, FileNotFoundError) else 126})
            return
        self.outs = {self.child.stdout.fileno(): "out", self.child.stderr.fileno(): "err"}
        for fd in list(self.outs) + [self.child.stdin.fileno()]:
            os.set_blocking(fd, False)

    def wants(self):
        wanted = {} if self.port.is_full() else {fd: select.POLLIN for fd in self.outs}
        if self.waiting and not self.child.stdin.closed:
            wanted[self.child.stdin.fileno()] = select.POLLOUT
        return wanted

    def more(self, piece, said):
        if piece is None:
            self.ends = True
        else:
            self.waiting += piece
        self.feed()

    def feed(self):
        stdin = self.child.stdin
        try:
            while self.waiting and not stdin.closed:
                wrote = os.write(stdin.fileno(), self.waiting[:PIECE])
                del self.waiting[:wrote]
                self.port.send({"took": wrote})
        except BlockingIOError:
            return
        except OSError:
            stdin.close()
        if stdin.closed and self.waiting:
            self.port.send({"took": len(self.waiting)})
            self.waiting.clear()
        if self.ends and not self.waiting and not stdin.closed:
            stdin.close()

    def read(self, fd):
        try:
            piece = os.read(fd, PIECE)
        except BlockingIOError:
            return False
        if piece:
            self.port.data(self.outs[fd], piece)
        else:
            del self.outs[fd]
        return bool(piece)

    def step(self, ready):
        if self.child.poll() is None:
            for fd in ready:
                if fd in self.outs:
                    self.read(fd)
            self.feed()
            return
        for fd in list(self.outs):
            rounds = 0
            while rounds < 64 and fd in self.outs and self.read(fd):
                rounds += 1
        status = self.child.returncode
        self.port.done({"status": status if status >= 0 else 128 - status})

    def end(self):
        if self.child is None:
            return
        if self.child.poll() is None:
            try:
                os.killpg(self.child.pid, signal.SIGKILL)
            except OSError:
                pass
            self.child.wait()
        for stream in (self.child.stdin, self.child.stdout, self.child.stderr):
            stream.close()


class Put:
    """A file from the host. It gets its name when it is complete."""

    def __init__(self, port, said):
        self.port = port
        self.target = os.path.realpath(said["path"])
        self.mode = int(said["mode"]) & 0o777
        self.owner = None
        if os.path.lexists(self.target):
            facts = os.stat(self.target)
            if not stat.S_ISREG(facts.st_mode):
                raise OSError("%s is not a regular file" % self.target)
            self.mode, self.owner = stat.S_IMODE(facts.st_mode), (facts.st_uid, facts.st_gid)
        self.part = os.path.join(os.path.dirname(self.target), ".cairn-cp.part")
        remove(glob.escape(self.part))
        self.file = open(os.open(self.part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        self.hash, self.size = hashlib.sha256(), 0

    def wants(self):
        return {}

    def more(self, piece, said):
        if piece is not None:
            self.file.write(piece)
            self.hash.update(piece)
            self.size += len(piece)
            self.port.send({"took": len(piece)})
            return
        facts = {"size": self.size, "sha256": self.hash.hexdigest()}
        if facts != {"size": said.get("size"), "sha256": said.get("sha256")}:
            raise OSError("the bytes that came are not those of the file")
        self.file.flush()
        fd = self.file.fileno()
        if self.owner:
            os.fchown(fd, *self.owner)
        os.fchmod(fd, self.mode)
        os.fsync(fd)
        os.rename(self.part, self.target)
        folder = os.open(os.path.dirname(self.target), os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
        self.port.done(facts)

    def step(self, ready):
        pass

    def end(self):
        try:
            self.file.close()
        except OSError:
            pass
        remove(glob.escape(self.part))


class Get:
    """A file for the host."""

    def __init__(self, port, said):
        self.port = port
        self.file = open(os.open(said["path"], os.O_RDONLY | os.O_NONBLOCK), "rb")
        facts = os.fstat(self.file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            self.file.close()
            raise OSError("%s is not a regular file" % said["path"])
        self.hash, self.size = hashlib.sha256(), 0
        port.send({"size": facts.st_size, "mode": stat.S_IMODE(facts.st_mode)})

    def wants(self):
        return {} if self.port.is_full() else None

    def more(self, piece, said):
        pass

    def step(self, ready):
        while not self.port.is_full():
            piece = self.file.read(PIECE)
            if not piece:
                self.port.done({"size": self.size, "sha256": self.hash.hexdigest()})
                return
            self.hash.update(piece)
            self.size += len(piece)
            self.port.data("out", piece)

    def end(self):
        self.file.close()


JOBS = {"exec": Exec, "put": Put, "get": Get}


class Port:
    """The serial port: one line of JSON for each request and answer, and one request at a time."""

    def __init__(self, fd, wake):
        self.fd, self.wake = fd, wake
        self.lines, self.skips, self.out = bytearray(), False, bytearray()
        self.id, self.job = None, None

    def send(self, value):
        self.out += json.dumps({"id": self.id, **value}).encode() + b"\n"
        self.flush()

    def data(self, name, piece):
        self.send({name: base64.b64encode(piece).decode()})

    def done(self, value):
        self.send({"done": value})
        self.drop()

    def fail(self, error):
        self.send({"failed": str(error)[:500]})
        self.drop()

    def drop(self):
        job, self.job, self.id = self.job, None, None
        if job is not None:
            job.end()

    def is_full(self):
        return len(self.out) > MOST

    def flush(self):
        try:
            while self.out:
                del self.out[: os.write(self.fd, self.out[:PIECE])]
        except BlockingIOError:
            pass

    def begin(self, said):
        self.drop()
        self.id = said["id"]
        self.send({"began": VERSION})
        if said["do"] == "hello":
            return self.done({"version": VERSION, "time": milliseconds()})
        if said["do"] == "identity":
            return self.identity(said)
        # A job that is done at once has cleared the id.
        job = JOBS[said["do"]](self, said)
        if self.id is None:
            job.end()
        else:
            self.job = job

    def identity(self, said):
        self.step("clock", step_clock, said)
        self.step("entropy", add_entropy, said)
        if said.get("new") is True:
            for name, work in NEW:
                self.step(name, work, said)
            record_instance(said["machine_id"])
        self.done({"time": milliseconds()})

    def step(self, name, work, said):
        try:
            work(said)
            self.send({"did": name})
        except Exception as error:
            self.send({"not": name, "why": str(error)[:200]})

    def hear(self, line):
        try:
            said = json.loads(line)
            if not isinstance(said, dict) or not re.fullmatch(r"[\w.-]{1,64}", said["id"]):
                return
        except (ValueError, KeyError, TypeError, RecursionError):
            return
        try:
            if "do" in said:
                self.begin(said)
            elif "still" in said:
                failed = "it started again, and may have ended the command"
                answer = {"still": True} if said["id"] == self.id else {"failed": failed}
                self.send({**answer, "id": said["id"]})
            elif self.job is not None and said["id"] == self.id and "in" in said:
                self.job.more(None if said["in"] is None else base64.b64decode(said["in"]), said)
        except Exception as error:
            if self.id is not None:
                self.fail(error)

    def read(self):
        """Returns false if no host is connected."""
        try:
            piece = os.read(self.fd, PIECE)
        except BlockingIOError:
            return True
        if not piece:
            return False
        self.lines += piece
        while True:
            at = self.lines.find(b"\n")
            if at < 0:
                break
            line = bytes(self.lines[:at])
            del self.lines[: at + 1]
            if line and not self.skips:
                self.hear(line)
            self.skips = False
        if len(self.lines) > LINE:
            self.lines.clear()
            self.skips = True
        return True

    def serve(self):
        while True:
            poll = select.poll()
            poll.register(self.wake, select.POLLIN)
            poll.register(self.fd, select.POLLIN | (select.POLLOUT if self.out else 0))
            wants = {} if self.job is None else self.job.wants()
            for fd, events in (wants or {}).items():
                poll.register(fd, events)
            ready = dict(poll.poll(0 if wants is None else None))
            self.woken(ready)
            events = ready.get(self.fd, 0)
            there = self.read() if events & (select.POLLIN | select.POLLHUP | select.POLLERR) else True
            if not there:
                self.drop()
                self.out.clear()
                self.lines.clear()
                self.away()
                continue
            self.flush()
            if self.job is not None:
                try:
                    self.job.step(ready)
                except Exception as error:
                    self.fail(error)

    def woken(self, ready):
        if self.wake in ready:
            os.read(self.wake, 4096)

    def away(self):
        """Waits for a host: a signal tells of one, and each second is a look without a signal."""
        poll = select.poll()
        poll.register(self.wake, select.POLLIN)
        self.woken(dict(poll.poll(1000)))


def find():
    for file in glob.glob("/sys/class/virtio-ports/*/name"):
        with open(file) as opened:
            if opened.read().strip() == NAME:
                return "/dev/" + file.split("/")[-2]
    return None


def main():
    wake, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    for number in (signal.SIGCHLD, signal.SIGIO):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    while True:
        try:
            file = find()
            if file is not None:
                fd = os.open(file, os.O_RDWR | os.O_NONBLOCK)
                try:
                    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
                    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK | fcntl.FASYNC)
                    Port(fd, wake).serve()
                finally:
                    os.close(fd)
        except OSError:
            pass
        time.sleep(1)


if sys.argv[1:2] == ["instance"]:
    first_boot(sys.argv[2])
else:
    main()
`;

const PLACE = "/usr/local/lib/cairn/guest.py";
const UNIT = `[Unit]
Description=Cairn's service in a virtual machine
[Service]
ExecStart=/usr/bin/env PYTHON -I ${PLACE}
Restart=always
RestartSec=1
[Install]
WantedBy=multi-user.target
`;

/** The script that installs and starts the service, as cloud-init runs it once for each instance id. */
export const installing = (instance: string): string => `#!/bin/sh
python=$(command -v python3 || command -v /usr/libexec/platform-python) || exit 0
mkdir -p ${PLACE.slice(0, PLACE.lastIndexOf("/"))}
cat >${PLACE} <<'END_OF_SERVICE'
${GUEST_SERVICE}END_OF_SERVICE
"$python" -I ${PLACE} instance ${instance}
if [ -d /run/systemd/system ]; then
  sed "s|/usr/bin/env PYTHON|$python|" >/etc/systemd/system/cairn-guest.service <<'END_OF_UNIT'
${UNIT}END_OF_UNIT
  systemctl daemon-reload
  systemctl enable cairn-guest.service
  systemctl --no-block restart cairn-guest.service
else
  setsid "$python" -I ${PLACE} </dev/null >/dev/null 2>&1 &
fi
`;
