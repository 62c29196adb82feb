// Stands for CuPy's header of this name, whose numbers nothing here computes with.
#pragma once

template <class T>
struct complex {
    T re, im;
    complex(T re = 0, T im = 0) : re(re), im(im) {}
    T real() const { return re; }
    T imag() const { return im; }
};

template <class T>
T norm(const complex<T>& z) {
    return z.re * z.re + z.im * z.im;
}
