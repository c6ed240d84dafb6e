# Firmware by which src/capture/vm/host.ts probes KVM: from real mode to long mode with paging, a loop that uses memory,
# then the exit of QEMU's debug device. It is the last 512 bytes of the first MiB, and of the first 4 GiB.
# Its bytes in host.ts: as kvm-probe.s -o probe.o && objcopy -O binary -j .text probe.o /dev/stdout | xxd -p
        .code16
        .org 0
start:  cli
        xorw    %ax, %ax
        movw    %ax, %es
        # Page tables at 0x1000, 0x2000, 0x3000: the first 2 MiB, each page as it is.
        movl    $0x2003, %es:0x1000
        movl    $0x3003, %es:0x2000
        movl    $0x0083, %es:0x3000
        lgdtl   %cs:(gdtr - start + 0xfe00)
        movl    $0x20, %eax             # PAE
        movl    %eax, %cr4
        movl    $0x1000, %eax
        movl    %eax, %cr3
        movl    $0xc0000080, %ecx       # EFER: long mode
        rdmsr
        orl     $0x100, %eax
        wrmsr
        movl    %cr0, %eax
        orl     $0x80000001, %eax       # paging, protection
        movl    %eax, %cr0
        ljmpl   $8, $(long - start + 0xffe00)
        .code64
long:   movw    $16, %ax
        movw    %ax, %ds
        movw    %ax, %ss
        movl    $0x8000, %esp
        # Processor features that a guest's kernel asks for, and a loop that uses memory.
        xorl    %eax, %eax
        cpuid
        movl    $1000000, %ecx
again:  pushq   %rcx
        popq    %rdx
        decl    %ecx
        jnz     again
        movw    $0xf4, %dx
        movb    $0x15, %al
        outb    %al, %dx
        hlt
        .align 8
gdt:    .quad   0
        .quad   0x00af9a000000ffff      # code of 64 bits
        .quad   0x00cf92000000ffff      # data
gdtr:   .word   gdtr - gdt - 1
        .long   gdt - start + 0xffe00
        .org 0x1f0
reset:  .code16
        ljmpw   $0xf000, $0xfe00
        .org 0x200
