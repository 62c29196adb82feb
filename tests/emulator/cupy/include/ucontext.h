// Stands for the system's header of this name, as far as ../../cuda.h uses it: contexts that are
// switched without asking the system which signals are blocked, on x86-64. Kernels take an eighth of
// the time.
#pragma once

#include <stddef.h>
#include <stdint.h>

struct ucontext_t {
    void** top;  // of its stack, where its registers are, while another one runs
    struct {
        void* ss_sp;
        size_t ss_size;
    } uc_stack;
    ucontext_t* uc_link;
};

inline int getcontext(ucontext_t*) { return 0; }

// Prepares a context to begin with `enter`, which must not return.
inline void makecontext(ucontext_t* context, void (*enter)(), int) {
    auto end = uintptr_t(context->uc_stack.ss_sp) + context->uc_stack.ss_size;
    void** top = reinterpret_cast<void**>(end / 16 * 16);
    *--top = nullptr;  // where the address to return to would be
    *--top = reinterpret_cast<void*>(enter);
    for (int i = 0; i < 6; i++) *--top = nullptr;
    context->top = top;
}

// Keeps the registers that a call may not change, and takes those of another stack instead.
__attribute__((naked)) inline void switch_stacks(void***, void**) {
    asm("push %rbp; push %rbx; push %r12; push %r13; push %r14; push %r15;"
        "mov %rsp, (%rdi); mov %rsi, %rsp;"
        "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbx; pop %rbp; ret");
}

inline int swapcontext(ucontext_t* from, const ucontext_t* to) {
    switch_stacks(&from->top, to->top);
    return 0;
}
