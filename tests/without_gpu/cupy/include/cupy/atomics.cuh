// Stands for CuPy's header of this name: threads take turns, so that nothing comes between.
#pragma once

template <class T>
T atomicAdd(T* place, T more) {
    T before = *place;
    *place += more;
    return before;
}
