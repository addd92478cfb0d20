"""Several hosts on this machine: network namespaces, joined by a bridge, that share files and see no other network."""

import os
import shutil
import subprocess


class NotPermittedError(Exception):
    """Why there can be no such hosts here."""


class Hosts:
    """A hub at 10.203.0.1 with a bridge to so many others, at 10.203.0.2 and on; nothing is left after ``close``."""

    def __init__(self, n_others: int) -> None:
        if shutil.which("ip") is None:
            raise NotPermittedError("there is no command ip (iproute2)")
        self.hub, *self.others = self.all = [f"10.203.0.{number}" for number in range(1, n_others + 2)]
        self._names = {address: f"host-{os.getpid()}-{address.rpartition('.')[2]}" for address in self.all}
        try:
            self._build()
        except subprocess.CalledProcessError as exc:
            self.close()
            raise NotPermittedError(f"network namespaces cannot be made here: {exc.stderr.strip()}") from exc

    def inside(self, address: str) -> list[str]:
        """Return what to write before a command so that it runs on a host."""
        return ["ip", "netns", "exec", self._names[address]]

    def unplug(self, address: str) -> None:
        """Take the link to a host down, without a word to either end."""
        _ip("-n", self._names[self.hub], "link", "set", self._names[address][-15:], "down")

    def close(self) -> None:
        for name in self._names.values():
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)

    def _build(self) -> None:
        hub = self._names[self.hub]
        for address in self.all:
            name = self._names[address]
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
            if address == self.hub:
                _ip("-n", name, "link", "add", "lan", "type", "bridge")
            else:
                port = name[-15:]
                _ip("link", "add", port, "netns", hub, "type", "veth", "peer", "name", "lan", "netns", name)
                _ip("-n", hub, "link", "set", port, "master", "lan", "up")
            _ip("-n", name, "address", "add", f"{address}/24", "dev", "lan")
            _ip("-n", name, "link", "set", "lan", "up")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
