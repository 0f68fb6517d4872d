"""What every sandboxed Python has loaded and used once before it is born.

Loading takes seconds, a first `solve` some tenths of one; forks inherit both. Where code cannot
open files (see `inference.isolation.walls`) these are also the only modules it has.
"""

import gc
import importlib
import os
import sys
import warnings
from contextlib import suppress

_MODULES = """
    array ast asyncio base64 bisect calendar cmath collections concurrent.futures.process
    concurrent.futures.thread copy cProfile csv ctypes dataclasses datetime decimal difflib enum
    fractions functools glob graphlib hashlib heapq inspect io itertools json logging math mmap
    mpmath multiprocessing.pool numbers operator pathlib pickle pprint pstats pty queue random
    re resource secrets shutil signal statistics string struct subprocess sympy.abc
    sympy.printing.c sympy.stats tempfile textwrap threading time timeit traceback types typing
    unicodedata uuid warnings zlib
"""
_IF_INSTALLED = ("numpy", "networkx")
_ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def warm_up() -> None:
    """Loads the modules, uses sympy a little and forgets the environment."""
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))  # a process with threads cannot fork
    for name in _MODULES.split():
        importlib.import_module(name)
    for name in _IF_INSTALLED:
        with suppress(ImportError):
            importlib.import_module(name)
    _algebra()
    _more_algebra()
    for category in (SyntaxWarning, DeprecationWarning):  # a model cannot do anything about them
        warnings.simplefilter("ignore", category)
    os.environ.clear()
    sys.argv, sys.orig_argv = [""], []
    gc.collect()
    gc.freeze()  # shared with every fork: no collection touches these pages


def _algebra() -> None:
    import sympy as s

    x, y = s.symbols("x y")
    s.solve([x**2 + y - 3, x - y - 1], [x, y]), s.solve(s.sin(x) - s.Rational(1, 2), x)
    s.solveset(x**2 - 1, x), s.linsolve([x + y - 1, x - y], [x, y]), s.nsolve(x**3 - 2, 1)
    s.simplify(s.sin(x) ** 2 + s.cos(x) ** 2), s.factor(x**4 - 1), s.expand((x + 1) ** 5)
    s.apart(1 / (x**2 - 1), x), s.together(1 / x + 1 / y), s.cancel((x**2 - 1) / (x - 1))
    s.integrate(x * s.exp(x), x), s.integrate(x**2, (x, 0, 1)), s.diff(s.sin(x), x)
    s.limit(s.sin(x) / x, x, 0), s.series(s.exp(x), x, 0, 4), s.reduce_inequalities([x**2 < 4], x)
    s.Matrix([[1, 2], [3, 4]]).eigenvals(), s.Matrix([[1, 2], [3, 4]]).inv()
    s.Poly(x**3 - 2, x).nroots(), s.groebner([x * y - 1, x - y], x, y)
    s.resultant(x**2 - 1, x - 2, x), s.minimal_polynomial(s.sqrt(2), x)
    s.Piecewise((x, x > 0), (0, True)).subs(x, 1), s.Eq(x, 1).subs(x, 1)
    s.satisfiable(x & ~y), s.refine(s.sqrt(x**2), s.Q.positive(x)), s.mathml(x), s.pretty(x**2 / 2)


def _more_algebra() -> None:
    import sympy as s

    n, f = s.symbols("n", integer=True), s.Function("f")
    s.summation(n**2, (n, 1, 10)), s.Sum(1 / n**2, (n, 1, s.oo)).doit(), s.product(n, (n, 1, 4))
    s.rsolve(f(n + 1) - 2 * f(n), f(n)), s.diophantine(3 * n + 2 * s.Symbol("m", integer=True) - 1)
    s.factorint(2**31 - 2), s.isprime(2**61 - 1), s.divisors(360), s.totient(100)
    (
        list(s.primerange(1, 50)),
        s.binomial(9, 3),
        s.N(s.pi, 50),
        s.nsimplify(0.5),
        s.mod_inverse(3, 7),
    )
    s.sympify("x**2 + 1"), s.latex(s.Symbol("x") ** 2 / 2), s.Point(0, 0).distance(s.Point(3, 4))
    s.Triangle(s.Point(0, 0), s.Point(4, 0), s.Point(0, 3)).area, s.lambdify(n, n**2)(3)
    s.ntheory.discrete_log(7, 2, 3), s.ntheory.modular.crt([3, 5], [2, 3]), s.dsolve(f(n).diff(n))
