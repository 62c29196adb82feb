"""A stand-in for CuPy that cannot be used: opening it fails where a test chooses."""

import types


class CompileError(Exception):
    """CuPy's CompileException, which is not a RuntimeError."""


class FaultyCuPy(types.ModuleType):
    """The parts of CuPy that opening the backend uses. `fault` names what fails, if anything."""

    ndarray = type("ndarray", (), {})
    asarray = asnumpy = staticmethod(lambda x: x)

    def __init__(self, fault: str = "", capability: str = "90") -> None:
        super().__init__("cupy")
        self.fault = fault
        device = types.SimpleNamespace(compute_capability=capability, synchronize=lambda: None)
        runtime = types.SimpleNamespace(getDeviceCount=self._count)
        self.cuda = types.SimpleNamespace(
            runtime=runtime,
            Device=lambda: device,
            device=types.SimpleNamespace(get_cublas_handle=self._handle),
            compiler=types.SimpleNamespace(CompileException=CompileError),
            alloc=None,
            MemoryPool=lambda: None,
        )

    def get_default_memory_pool(self) -> None:
        return None

    def _count(self) -> int:
        if self.fault == "driver":
            raise RuntimeError("cudaErrorInsufficientDriver: too old")
        return 1

    def zeros(self, size: int) -> None:
        if self.fault == "memory":
            raise MemoryError("Out of memory allocating 512 bytes")

    def _handle(self) -> None:
        if self.fault == "cublas's memory":
            raise RuntimeError("CUBLAS_STATUS_ALLOC_FAILED")

    def ones(self, size: int) -> None:
        if self.fault == "compiler":
            raise RuntimeError(
                "CuPy failed to load libnvrtc.so.13: OSError: no such file\n\nand so on"
            )
        if self.fault == "headers":
            raise CompileError("cannot open source file 'cuda_fp16.h'\n1 error")


class Libraries(types.ModuleType):
    """CuPy's package of libraries, which finds and loads a library on first use."""

    there = True

    def __getattr__(self, name: str) -> types.ModuleType:
        if not self.there:
            raise ImportError(f"lib{name}.so.13: cannot open shared object file")
        return types.ModuleType(name)
