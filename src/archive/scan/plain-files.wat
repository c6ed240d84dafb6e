;; Encodes runs of common files from their records: the entries of a tree, of a state node and of a metadata node.
;; src/archive/scan/plain-files.ts has the layout of the memory and what each function promises.
;;
;; A record is 128 bytes (src/archive/cache/scan-table.ts). Copies go by 8 bytes and may write up to 7 beyond their end, which
;; whatever is written next covers.
(module
  (memory (export "memory") 17)

  ;; results of encode: ends of the three outputs
  ;; 0 tree, 4 state, 8 metadata

  (data (i32.const 0x1000) ",{\"name\":\"")
  (data (i32.const 0x1010) "\",\"atime\":\"")
  (data (i32.const 0x1020) "\",\"ctime\":\"")
  (data (i32.const 0x1030) ",\"size\":")
  (data (i32.const 0x1040) ",\"links\":1,\"content\":[\"")
  (data (i32.const 0x1060) "\"]}")

  (global $day (mut i32) (i32.const -1))
  (global $uid (mut i32) (i32.const -1))
  (global $gid (mut i32) (i32.const -1))
  (global $ownerLength (mut i32) (i32.const 0))

  (func (export "owner") (param $uid i32) (param $gid i32) (param $length i32)
    (global.set $uid (local.get $uid))
    (global.set $gid (local.get $gid))
    (global.set $ownerLength (local.get $length)))

  (func $put (param $p i32) (param $from i32) (param $n i32) (result i32)
    (local $end i32)
    (local.set $end (i32.add (local.get $p) (local.get $n)))
    (loop $next
      (i64.store (local.get $p) (i64.load (local.get $from)))
      (local.set $p (i32.add (local.get $p) (i32.const 8)))
      (local.set $from (i32.add (local.get $from) (i32.const 8)))
      (br_if $next (i32.lt_u (local.get $p) (local.get $end))))
    (local.get $end))

  ;; two decimal digits
  (func $pair (param $p i32) (param $value i32)
    (i32.store16 (local.get $p) (i32.load16_u offset=0x300 (i32.shl (local.get $value) (i32.const 1)))))

  (func $decimal (param $p i32) (param $value i64) (result i32)
    (local $limit i64) (local $at i32) (local $end i32) (local $rest i64)
    (local.set $limit (i64.const 10))
    (local.set $at (local.get $p))
    (block $counted
      (loop $next
        (br_if $counted (i64.lt_u (local.get $value) (local.get $limit)))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (local.set $limit (i64.mul (local.get $limit) (i64.const 10)))
        (br $next)))
    (local.set $end (i32.add (local.get $at) (i32.const 1)))
    (loop $digit
      (local.set $rest (i64.div_u (local.get $value) (i64.const 10)))
      (i64.store8 (local.get $at)
        (i64.add (i64.const 48) (i64.sub (local.get $value) (i64.mul (local.get $rest) (i64.const 10)))))
      (local.set $value (local.get $rest))
      (local.set $at (i32.sub (local.get $at) (i32.const 1)))
      (br_if $digit (i32.ge_u (local.get $at) (local.get $p))))
    (local.get $end))

  ;; `YYYY-MM-DDT` of a day since 1970, at 0x500
  (func $formatDay (param $day i32)
    (local $era i32) (local $dayOfEra i32) (local $yearOfEra i32) (local $dayOfYear i32) (local $month i32) (local $year i32)
    (global.set $day (local.get $day))
    (local.set $day (i32.add (local.get $day) (i32.const 719468)))
    (local.set $era (i32.div_u (local.get $day) (i32.const 146097)))
    (local.set $dayOfEra (i32.sub (local.get $day) (i32.mul (local.get $era) (i32.const 146097))))
    (local.set $yearOfEra
      (i32.div_u
        (i32.sub
          (i32.add
            (i32.sub (local.get $dayOfEra) (i32.div_u (local.get $dayOfEra) (i32.const 1460)))
            (i32.div_u (local.get $dayOfEra) (i32.const 36524)))
          (i32.div_u (local.get $dayOfEra) (i32.const 146096)))
        (i32.const 365)))
    (local.set $dayOfYear
      (i32.sub (local.get $dayOfEra)
        (i32.sub
          (i32.add (i32.mul (i32.const 365) (local.get $yearOfEra)) (i32.div_u (local.get $yearOfEra) (i32.const 4)))
          (i32.div_u (local.get $yearOfEra) (i32.const 100)))))
    ;; counted from March
    (local.set $month
      (i32.div_u (i32.add (i32.mul (i32.const 5) (local.get $dayOfYear)) (i32.const 2)) (i32.const 153)))
    (call $pair (i32.const 0x508)
      (i32.add (i32.const 1)
        (i32.sub (local.get $dayOfYear)
          (i32.div_u (i32.add (i32.mul (i32.const 153) (local.get $month)) (i32.const 2)) (i32.const 5)))))
    (local.set $month
      (i32.add (local.get $month)
        (select (i32.const 3) (i32.const -9) (i32.lt_u (local.get $month) (i32.const 10)))))
    (local.set $year
      (i32.add
        (i32.add (local.get $yearOfEra) (i32.mul (local.get $era) (i32.const 400)))
        (i32.le_u (local.get $month) (i32.const 2))))
    (call $pair (i32.const 0x500) (i32.div_u (local.get $year) (i32.const 100)))
    (call $pair (i32.const 0x502) (i32.rem_u (local.get $year) (i32.const 100)))
    (i32.store8 (i32.const 0x504) (i32.const 0x2d))
    (call $pair (i32.const 0x505) (local.get $month))
    (i32.store8 (i32.const 0x507) (i32.const 0x2d))
    (i32.store8 (i32.const 0x50a) (i32.const 0x54)))

  (func $time (param $p i32) (param $seconds i32) (param $nanoseconds i32) (result i32)
    (local $day i32) (local $hour i32) (local $minute i32) (local $rest i32)
    (local.set $day (i32.div_u (local.get $seconds) (i32.const 86400)))
    (if (i32.ne (local.get $day) (global.get $day)) (then (call $formatDay (local.get $day))))
    (i64.store (local.get $p) (i64.load (i32.const 0x500)))
    (i32.store offset=8 (local.get $p) (i32.load (i32.const 0x508)))
    (local.set $rest (i32.sub (local.get $seconds) (i32.mul (local.get $day) (i32.const 86400))))
    (local.set $hour (i32.div_u (local.get $rest) (i32.const 3600)))
    (local.set $rest (i32.sub (local.get $rest) (i32.mul (local.get $hour) (i32.const 3600))))
    (local.set $minute (i32.div_u (local.get $rest) (i32.const 60)))
    (call $pair (i32.add (local.get $p) (i32.const 11)) (local.get $hour))
    (i32.store8 offset=13 (local.get $p) (i32.const 0x3a))
    (call $pair (i32.add (local.get $p) (i32.const 14)) (local.get $minute))
    (i32.store8 offset=16 (local.get $p) (i32.const 0x3a))
    (call $pair (i32.add (local.get $p) (i32.const 17))
      (i32.sub (local.get $rest) (i32.mul (local.get $minute) (i32.const 60))))
    (local.set $p (i32.add (local.get $p) (i32.const 19)))
    (if (local.get $nanoseconds)
      (then
        (i32.store8 (local.get $p) (i32.const 0x2e))
        (local.set $rest (i32.div_u (local.get $nanoseconds) (i32.const 100000000)))
        (i32.store8 offset=1 (local.get $p) (i32.add (i32.const 48) (local.get $rest)))
        (local.set $rest (i32.sub (local.get $nanoseconds) (i32.mul (local.get $rest) (i32.const 100000000))))
        (call $pair (i32.add (local.get $p) (i32.const 2)) (i32.div_u (local.get $rest) (i32.const 1000000)))
        (call $pair (i32.add (local.get $p) (i32.const 4))
          (i32.rem_u (i32.div_u (local.get $rest) (i32.const 10000)) (i32.const 100)))
        (call $pair (i32.add (local.get $p) (i32.const 6))
          (i32.rem_u (i32.div_u (local.get $rest) (i32.const 100)) (i32.const 100)))
        (call $pair (i32.add (local.get $p) (i32.const 8)) (i32.rem_u (local.get $rest) (i32.const 100)))
        (local.set $p (i32.add (local.get $p) (i32.const 10)))
        (loop $trim
          (if (i32.eq (i32.load8_u (i32.sub (local.get $p) (i32.const 1))) (i32.const 48))
            (then
              (local.set $p (i32.sub (local.get $p) (i32.const 1)))
              (br $trim))))))
    (i32.store8 (local.get $p) (i32.const 0x5a))
    (i32.add (local.get $p) (i32.const 1)))

  (func $isPlain (param $name i32) (param $n i32) (result i32)
    (local $end i32)
    (local.set $end (i32.add (local.get $name) (local.get $n)))
    (loop $next
      (if (i32.eqz (i32.load8_u offset=0x400 (i32.load8_u (local.get $name)))) (then (return (i32.const 0))))
      (local.set $name (i32.add (local.get $name) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $name) (local.get $end))))
    (i32.const 1))

  ;; Encodes records from `first` on; returns the one that it stopped at, which is `end` when none was in the way.
  ;; A name lies at `names` plus the offset in its record.
  (func (export "encode") (param $first i32) (param $end i32) (param $names i32) (result i32)
    (local $record i32) (local $stop i32) (local $mode i32) (local $flags i32) (local $n i32) (local $name i32)
    (local $kind i32) (local $size i64) (local $tree i32) (local $state i32) (local $meta i32)
    (local $at i32) (local $length i32)
    (local.set $tree (i32.const 0x50000))
    (local.set $state (i32.const 0xb8000))
    (local.set $meta (i32.const 0xe0000))
    (local.set $record (i32.add (i32.const 0x10000) (i32.shl (local.get $first) (i32.const 7))))
    (local.set $stop (i32.add (i32.const 0x10000) (i32.shl (local.get $end) (i32.const 7))))
    (block $stopped
      (loop $next
        (br_if $stopped (i32.ge_u (local.get $record) (local.get $stop)))
        (local.set $mode (i32.load offset=8 (local.get $record)))
        (br_if $stopped (i32.ne (i32.shr_u (local.get $mode) (i32.const 12)) (i32.const 8)))
        (br_if $stopped (i32.ne (i32.load offset=20 (local.get $record)) (i32.const 1)))
        (local.set $flags (i32.load offset=4 (local.get $record)))
        ;; EXTRAS, OMITTED, CHUNKED
        (br_if $stopped (i32.and (i32.shr_u (local.get $flags) (i32.const 16)) (i32.const 21)))
        ;; before 1970 or after 2106
        (br_if $stopped (i32.load offset=36 (local.get $record)))
        (local.set $size (i64.load offset=24 (local.get $record)))
        (br_if $stopped (i64.eqz (local.get $size)))
        (br_if $stopped (i64.ge_u (local.get $size) (i64.const 0x20000000000000)))
        (br_if $stopped (i32.ne (i32.load offset=12 (local.get $record)) (global.get $uid)))
        (br_if $stopped (i32.ne (i32.load offset=16 (local.get $record)) (global.get $gid)))
        (local.set $mode (i32.and (local.get $mode) (i32.const 0xfff)))
        (local.set $kind (i32.load offset=0x2000 (i32.shl (local.get $mode) (i32.const 2))))
        (br_if $stopped (i32.eqz (local.get $kind)))
        (local.set $n (i32.and (local.get $flags) (i32.const 0xffff)))
        (local.set $name (i32.add (local.get $names) (i32.load (local.get $record))))
        (br_if $stopped (i32.eqz (call $isPlain (local.get $name) (local.get $n))))

        (local.set $tree (call $put (local.get $tree) (i32.const 0x1000) (i32.const 10)))
        (local.set $tree (call $put (local.get $tree) (local.get $name) (local.get $n)))
        (local.set $tree
          (call $put (local.get $tree) (i32.shr_u (local.get $kind) (i32.const 8)) (i32.and (local.get $kind) (i32.const 255))))
        (local.set $at (local.get $tree))
        (local.set $tree
          (call $time (local.get $tree) (i32.load offset=32 (local.get $record)) (i32.load offset=40 (local.get $record))))
        (local.set $length (i32.sub (local.get $tree) (local.get $at)))
        (local.set $tree (call $put (local.get $tree) (i32.const 0x1010) (i32.const 11)))
        (local.set $tree (call $put (local.get $tree) (local.get $at) (local.get $length)))
        (local.set $tree (call $put (local.get $tree) (i32.const 0x1020) (i32.const 11)))
        (local.set $tree (call $put (local.get $tree) (local.get $at) (local.get $length)))
        (local.set $tree (call $put (local.get $tree) (i32.const 0x600) (global.get $ownerLength)))
        (local.set $tree (call $put (local.get $tree) (i32.const 0x1030) (i32.const 8)))
        (local.set $tree (call $decimal (local.get $tree) (local.get $size)))
        (local.set $tree (call $put (local.get $tree) (i32.const 0x1040) (i32.const 23)))
        (local.set $at (i32.const 0))
        (loop $digit
          (i32.store16 (i32.add (local.get $tree) (i32.shl (local.get $at) (i32.const 1)))
            (i32.load16_u offset=0x100
              (i32.shl (i32.load8_u offset=96 (i32.add (local.get $record) (local.get $at))) (i32.const 1))))
          (local.set $at (i32.add (local.get $at) (i32.const 1)))
          (br_if $digit (i32.lt_u (local.get $at) (i32.const 32))))
        (local.set $tree (call $put (i32.add (local.get $tree) (i32.const 64)) (i32.const 0x1060) (i32.const 3)))

        (local.set $at (local.get $state))
        (i32.store8 (local.get $state) (i32.const 0x66))
        (i32.store offset=1 (local.get $state) (local.get $n))
        (local.set $state (call $put (i32.add (local.get $state) (i32.const 5)) (local.get $name) (local.get $n)))
        (i32.store (local.get $state) (local.get $mode))
        (i64.store offset=4 (local.get $state) (local.get $size))
        (drop (call $put (i32.add (local.get $state) (i32.const 12)) (i32.add (local.get $record) (i32.const 96)) (i32.const 32)))
        (local.set $state (i32.add (local.get $state) (i32.const 44)))

        (local.set $meta (call $put (local.get $meta) (local.get $at) (i32.sub (local.get $state) (local.get $at))))
        (i64.store (local.get $meta) (i64.load offset=32 (local.get $record)))
        (i32.store offset=8 (local.get $meta) (i32.load offset=40 (local.get $record)))
        (i32.store offset=12 (local.get $meta) (global.get $uid))
        (i32.store offset=16 (local.get $meta) (global.get $gid))
        (i32.store offset=20 (local.get $meta) (i32.const 0))
        (i32.store8 offset=24 (local.get $meta) (i32.const 0))
        (local.set $meta (i32.add (local.get $meta) (i32.const 25)))

        (local.set $record (i32.add (local.get $record) (i32.const 128)))
        (br $next)))
    (i32.store (i32.const 0) (local.get $tree))
    (i32.store (i32.const 4) (local.get $state))
    (i32.store (i32.const 8) (local.get $meta))
    (i32.shr_u (i32.sub (local.get $record) (i32.const 0x10000)) (i32.const 7)))
)
