//go:build ignore

// Makes vectors.json of this folder: what Go writes for names, strings and times. Run with Go 1.22 or newer:
//
//	go run make_vectors.go > vectors.json
package main

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand"
	"os"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"
)

type text struct {
	Raw    string `json:"raw_b64"`
	Name   string `json:"name_b64"`
	String string `json:"string_b64"`
}

type instant struct {
	Seconds     int64  `json:"seconds"`
	Nanoseconds int64  `json:"nanoseconds"`
	Text        string `json:"text"`
}

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func inside(s string) []byte {
	out, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return out[1 : len(out)-1]
}

func textOf(raw []byte) text {
	quoted := strconv.Quote(string(raw))
	return text{b64(raw), b64(inside(quoted[1 : len(quoted)-1])), b64(inside(string(raw)))}
}

func main() {
	random := rand.New(rand.NewSource(20261120))
	var texts []text
	for i := 0; i < 256; i++ {
		texts = append(texts, textOf([]byte{byte(i)}))
	}
	for _, s := range []string{"", "\u2028\u2029", "\u00ad\u00a0\ufeff", "\U000e0001\U0010ffff", "\ufffd", "a\xe2\x82", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xc0\x80", "<script>&\"\\'"} {
		texts = append(texts, textOf([]byte(s)))
	}
	for i := 0; i < 400; i++ {
		var raw []byte
		for n := random.Intn(12); n >= 0; n-- {
			switch random.Intn(4) {
			case 0:
				raw = append(raw, byte(random.Intn(256)))
			case 1:
				raw = append(raw, byte(32+random.Intn(95)))
			case 2:
				raw = utf8.AppendRune(raw, rune(random.Intn(0x3000)))
			case 3:
				raw = utf8.AppendRune(raw, rune(random.Intn(0x110000)))
			}
		}
		texts = append(texts, textOf(raw))
	}
	const first, last = -62167219200, 253402300799
	var times []instant
	add := func(s, ns int64) {
		times = append(times, instant{s, ns, time.Unix(s, ns).UTC().Format(time.RFC3339Nano)})
	}
	for _, s := range []int64{first, first + 1, -62135596800, -2208988800, -86401, -86400, -1, 0, 1, 951782399, 951782400, 4107542400, 13569465600, last - 1, last} {
		for _, ns := range []int64{0, 1, 10, 100000000, 120000000, 999999999} {
			add(s, ns)
		}
	}
	for i := 0; i < 300; i++ {
		add(first+random.Int63n(last-first), random.Int63n(1000000000))
	}
	printable := make([]byte, 0x110000)
	for r := range printable {
		if strconv.IsPrint(rune(r)) {
			printable[r] = 1
		}
	}
	sum := sha256.Sum256(printable)
	out, _ := json.MarshalIndent(map[string]any{
		"unicode": unicode.Version, "printable_sha256": hex.EncodeToString(sum[:]), "texts": texts, "times": times,
	}, "", "")
	fmt.Fprintln(os.Stdout, string(out))
}
