;; The inner loop of the chunker: a 64-bit Gear hash over a range of the imported memory.
;; Memory: 256 u64 gear values at 0, the same doubled at 2048, the caller's bytes from 65536 on.
;; Built by tools/build-kernel.ts into chunker-kernel.ts; chunker.ts has the same loop in TypeScript.
(module
  (import "cairn" "memory" (memory 2 65536 shared))
  (global $hash (mut i64) (i64.const 0))

  (func (export "reset")
    (global.set $hash (i64.const 0)))

  ;; Hashes bytes [at, end). Returns the position after the first byte where all bits of the mask
  ;; are zero, or 0 when there is none. The mask is bits 41..62 (strict) or 45..62.
  (func (export "scan") (param $at i32) (param $end i32) (param $strict i32) (result i32)
    (local $h i64) (local $mask i64) (local $double i64) (local $last i32) (local $first i64) (local $pair i64)
    (local.set $h (global.get $hash))
    (local.set $mask
      (select (i64.const 0x7ffffe0000000000) (i64.const 0x7fffe00000000000) (local.get $strict)))
    (local.set $double (i64.shl (local.get $mask) (i64.const 1)))
    ;; Eight bytes a turn, two for each shift: the first of a pair is tested one bit higher, and a
    ;; pair's sum is made beside the chain of hashes, which is what the loop waits for.
    (local.set $last (i32.sub (local.get $end) (i32.const 8)))
    (block $tail
      (br_if $tail (i32.gt_s (local.get $at) (local.get $last)))
      (loop $eight
        (local.set $first (i64.load offset=2048 (i32.shl (i32.load8_u (local.get $at)) (i32.const 3))))
        (local.set $pair (i64.add (local.get $first)
          (i64.load (i32.shl (i32.load8_u offset=1 (local.get $at)) (i32.const 3)))))
        (local.set $h (i64.shl (local.get $h) (i64.const 2)))
        (local.set $first (i64.add (local.get $h) (local.get $first)))
        (local.set $h (i64.add (local.get $h) (local.get $pair)))
        (if (i64.eqz (i64.and (local.get $first) (local.get $double)))
          (then (return (i32.add (local.get $at) (i32.const 1)))))
        (if (i64.eqz (i64.and (local.get $h) (local.get $mask)))
          (then (return (i32.add (local.get $at) (i32.const 2)))))
        (local.set $first (i64.load offset=2048 (i32.shl (i32.load8_u offset=2 (local.get $at)) (i32.const 3))))
        (local.set $pair (i64.add (local.get $first)
          (i64.load (i32.shl (i32.load8_u offset=3 (local.get $at)) (i32.const 3)))))
        (local.set $h (i64.shl (local.get $h) (i64.const 2)))
        (local.set $first (i64.add (local.get $h) (local.get $first)))
        (local.set $h (i64.add (local.get $h) (local.get $pair)))
        (if (i64.eqz (i64.and (local.get $first) (local.get $double)))
          (then (return (i32.add (local.get $at) (i32.const 3)))))
        (if (i64.eqz (i64.and (local.get $h) (local.get $mask)))
          (then (return (i32.add (local.get $at) (i32.const 4)))))
        (local.set $first (i64.load offset=2048 (i32.shl (i32.load8_u offset=4 (local.get $at)) (i32.const 3))))
        (local.set $pair (i64.add (local.get $first)
          (i64.load (i32.shl (i32.load8_u offset=5 (local.get $at)) (i32.const 3)))))
        (local.set $h (i64.shl (local.get $h) (i64.const 2)))
        (local.set $first (i64.add (local.get $h) (local.get $first)))
        (local.set $h (i64.add (local.get $h) (local.get $pair)))
        (if (i64.eqz (i64.and (local.get $first) (local.get $double)))
          (then (return (i32.add (local.get $at) (i32.const 5)))))
        (if (i64.eqz (i64.and (local.get $h) (local.get $mask)))
          (then (return (i32.add (local.get $at) (i32.const 6)))))
        (local.set $first (i64.load offset=2048 (i32.shl (i32.load8_u offset=6 (local.get $at)) (i32.const 3))))
        (local.set $pair (i64.add (local.get $first)
          (i64.load (i32.shl (i32.load8_u offset=7 (local.get $at)) (i32.const 3)))))
        (local.set $h (i64.shl (local.get $h) (i64.const 2)))
        (local.set $first (i64.add (local.get $h) (local.get $first)))
        (local.set $h (i64.add (local.get $h) (local.get $pair)))
        (if (i64.eqz (i64.and (local.get $first) (local.get $double)))
          (then (return (i32.add (local.get $at) (i32.const 7)))))
        (if (i64.eqz (i64.and (local.get $h) (local.get $mask)))
          (then (return (i32.add (local.get $at) (i32.const 8)))))
        (br_if $eight (i32.le_s (local.tee $at (i32.add (local.get $at) (i32.const 8))) (local.get $last)))))
    (block $done
      (loop $one
        (br_if $done (i32.ge_s (local.get $at) (local.get $end)))
        (local.set $h (i64.add (i64.shl (local.get $h) (i64.const 1))
          (i64.load (i32.shl (i32.load8_u (local.get $at)) (i32.const 3)))))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (if (i64.eqz (i64.and (local.get $h) (local.get $mask)))
          (then (return (local.get $at))))
        (br $one)))
    (global.set $hash (local.get $h))
    (i32.const 0)))
