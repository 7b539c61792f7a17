package limit

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/containerd/errdefs"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	bkerrdefs "github.com/moby/buildkit/solver/errdefs"
)

// lines is FROM scratch and what follows it.
func lines(list ...string) string { return "FROM scratch\n" + strings.Join(list, "\n") + "\n" }

func repeat(n int, line func(i int) string) string {
	var all strings.Builder
	for i := range n {
		all.WriteString(line(i) + "\n")
	}
	return all.String()
}

func TestWhatWouldGrowIsRefused(t *testing.T) {
	kilo := strings.Repeat("a", 1000)
	doubling := func(instruction string) string {
		return repeat(40, func(i int) string { return fmt.Sprintf(instruction, i+1, i, i) })
	}
	for name, text := range map[string]string{
		"a variable that doubles itself":         lines("ENV A=aaaaaaaaaa", strings.Repeat("ENV A=$A$A\n", 40)),
		"variables that double the one before":   lines("ENV A0=aaaaaaaaaa", doubling("ENV A%d=$A%d${A%d}")),
		"arguments that double":                  lines("ARG A0=aaaaaaaaaa", doubling("ARG A%d=$A%d${A%d}")),
		"arguments before the first stage":       "ARG A0=aaaaaaaaaa\n" + doubling("ARG A%d=$A%d$A%d") + "FROM scratch\nARG A30\n",
		"a name of other letters":                lines("ENV Ä=aaaaaaaaaa", strings.Repeat("ENV Ä=$Ä$Ä\n", 40)),
		"a special name":                         lines("ENV @=aaaaaaaaaa", strings.Repeat("ENV @=$@$@\n", 40)),
		"an old form of ENV":                     lines("ENV A aaaaaaaaaa", strings.Repeat("ENV A $A$A\n", 40)),
		"defaults":                               lines("ENV A=aaaaaaaaaa", strings.Repeat("ENV A=${X:-$A$A}\n", 40)),
		"in quotes":                              lines("ENV A=aaaaaaaaaa", strings.Repeat("ENV A=\"$A '$A'\"\n", 40)),
		"over several stages":                    "FROM scratch AS s0\nENV A=aaaaaaaaaa\n" + repeat(40, func(i int) string { return fmt.Sprintf("FROM s%d AS s%d\nENV A=$A$A", i, i+1) }),
		"over stages by their numbers":           "FROM scratch\nENV A=aaaaaaaaaa\n" + repeat(40, func(i int) string { return fmt.Sprintf("FROM %d\nENV A=$A$A", i) }),
		"a replacement of each byte":             lines("ENV A="+kilo, "ENV B=${A//a/"+kilo+"}", "ENV C=${B//a/"+kilo+"}"),
		"a replacement that quotes a brace":      lines("ENV A="+kilo, "ENV B=$A$A$A$A$A$A$A$A", "ENV C=${B//a/'}'$B}"),
		"a replacement of a brace":               lines("ENV A="+kilo, "ENV B=$A$A$A$A$A$A$A$A", "ENV C=${B//}/$B}"),
		"a replacement that repeats its pattern": lines("ENV A="+kilo, strings.Repeat("ENV A=${A//*/'$0$0$0$0'}\n", 10)),
		"labels":                                 lines("ENV A="+kilo, strings.Repeat("LABEL l=\""+strings.Repeat("$A", 1100)+"\"\n", 1)),
		"a here-document":                        lines("ENV A="+kilo, "COPY <<E /x", strings.Repeat("$A", 1100), "E"),
		"a flag of COPY":                         lines("ENV A="+kilo, "COPY --chown="+strings.Repeat("$A", 1100)+" a b"),
		"a flag of RUN":                          lines("ENV A="+kilo, "RUN --mount=target="+strings.Repeat("$A", 1100)+" true"),
		"a large environment for many steps":     lines("ENV A="+strings.Repeat("a", 50_000), strings.Repeat("RUN true\n", 2000)),
		"triggers of a stage":                    "FROM scratch AS a\nENV A=aaaaaaaaaa\n" + strings.Repeat("ONBUILD ENV A=$A$A\n", 40) + "FROM a\n",
		"nesting":                                lines("ENV A=" + strings.Repeat("${x:-", 200) + strings.Repeat("}", 200)),
		"nesting over continued lines":           lines("ENV A=" + strings.Repeat(strings.Repeat("${x:-", 1000)+"\\\n", 100)),
		"variables of stages upon stages":        "FROM scratch AS s0\nENV A=\n" + repeat(4000, func(i int) string { return fmt.Sprintf("FROM s%d AS s%d", i, i+1) }) + "ENV B=" + strings.Repeat("$A", 30_000) + "\n",
		"settings in stages upon stages":         "FROM scratch AS s0\n" + repeat(4000, func(i int) string { return fmt.Sprintf("FROM s%d AS s%d", i, i+1) }) + "ENV" + repeat(30_000, func(i int) string { return fmt.Sprintf(" A%d=\\", i) }) + "\n",
		"instructions":                           lines(strings.Repeat("ENV A=b\n", 20_000)),
		"stages":                                 strings.Repeat("FROM scratch\n", 20_000),
		"lines":                                  lines("ENV A=" + strings.Repeat("\\\n", 2_000_000)),
	} {
		t.Run(name, func(t *testing.T) {
			err := NewGuard(nil).Dockerfile("Dockerfile", []byte(text))
			if !errdefs.IsResourceExhausted(err) {
				t.Fatalf("error is %v", err)
			}
			if sources := bkerrdefs.Sources(err); name != "lines" && len(sources) != 1 {
				t.Errorf("error has %d places in the Dockerfile", len(sources))
			}
		})
	}
}

func TestWhatDoesNotGrowIsTaken(t *testing.T) {
	for name, text := range map[string]string{
		"a path that gets longer":     lines(strings.Repeat("ENV PATH=/opt/some/program/bin:$PATH\n", 200)),
		"many steps":                  lines("ENV A="+strings.Repeat("a", 10_000), strings.Repeat("RUN true\n", 2000)),
		"a script with variables":     lines("RUN a=1; " + strings.Repeat("a=$a$a; ", 5000)),
		"a template of nginx":         lines("COPY <<E /x", strings.Repeat("proxy_set_header X $host$uri;\n", 3000), "E"),
		"a large here-document":       lines("COPY <<E /x", strings.Repeat("all of this is text\n", 200_000), "E"),
		"replacements":                lines("ARG VERSION", `ENV A="${VERSION//./_}-${TARGETARCH/\//-}" B=${A//\//-}`, "LABEL v=${A}${B}"),
		"stages upon stages":          "FROM scratch AS s0\nENV A=a\n" + repeat(100, func(i int) string { return fmt.Sprintf("FROM s%d AS s%d\nENV A=$A", i, i+1) }),
		"what is no Dockerfile":       "COPPY $\xff",
		"a command":                   lines("ENV A="+strings.Repeat("a", 100_000), "CMD "+strings.Repeat("$A", 1000)),
		"assignments that cross over": lines("ENV A=a B=b", strings.Repeat("ENV A=$B B=$A\n", 1000)),
		"dollars":                     lines("ENV A=$ B=$$ C=\\$A D='$A' E=${A"),
	} {
		t.Run(name, func(t *testing.T) {
			if err := NewGuard(nil).Dockerfile("Dockerfile", []byte(text)); err != nil {
				t.Error(err)
			}
		})
	}
}

// The front end's library would tell the terminal of each zero byte.
func TestAZeroByteIsRefused(t *testing.T) {
	for text, refused := range map[string]bool{
		"FROM scratch\nENV A=b\x00\n": true, "F\x00R\x00O\x00M\x00": true, "FROM scratch\n": false, "\x1f\x8b\x08\x00\x00": false, // gzip: a context
	} {
		if err := NewGuard(nil).Dockerfile("Dockerfile", []byte(text)); errdefs.IsInvalidArgument(err) != refused {
			t.Errorf("%q: error is %v", text, err)
		}
	}
}

func TestWhatABaseImageBringsCounts(t *testing.T) {
	large := strings.Repeat("a", 100_000)
	config := func(env, onBuild []string) []byte {
		data, err := json.Marshal(map[string]any{"config": map[string]any{"Env": env, "OnBuild": onBuild}})
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	text := "FROM base\nENV B=" + strings.Repeat("$A", 100) + "\n"
	for name, test := range map[string]struct {
		args         map[string]string
		env, onBuild []string
		refused      bool
	}{
		"nothing":                         {},
		"a small variable":                {env: []string{"A=small"}},
		"a large variable":                {env: []string{"A=" + large}, refused: true},
		"a large argument":                {args: map[string]string{"A": large}, refused: true},
		"a trigger that makes it large":   {onBuild: []string{"ENV A=" + large[:60_000]}, refused: true},
		"a trigger that doubles":          {env: []string{"C=aaaaaaaaaa"}, onBuild: strings.Split(strings.Repeat("ENV C=$C$C;", 40), ";")[:40], refused: true},
		"a trigger that does nothing bad": {onBuild: []string{"RUN true", "COPY . /app"}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewGuard(test.args)
			err := g.Dockerfile("Dockerfile", []byte(text))
			if err == nil {
				err = g.Base(config(test.env, test.onBuild))
			}
			if errdefs.IsResourceExhausted(err) != test.refused {
				t.Errorf("error is %v", err)
			}
		})
	}
}

// What is computed is never less than what the front end makes of it.
func FuzzGrowth(f *testing.F) {
	for _, text := range []string{
		"$A$B", "${A:-${B}}", "${A//a/$B}", `${A//a/'}'$B}`, "${A//}/$B}", `"$A'$B'"`, `\$A`, `'$A'"$B"`, "${A//*/'$0$0$0'}", "${A/#a/$B}", "$", "${", "${A",
		`${A//\//$B}`, "${C+$A$A}", "${A%%*a}", "$@$0", "${A//a/${B//b/$A}}", `${A//"a"/$B}`, "${A//$A/$B}$B",
	} {
		f.Add(text, "aaaa", "bbbbbbbb")
	}
	f.Fuzz(func(t *testing.T, text, a, b string) {
		env := []string{"A=" + a, "B=" + b}
		if !utf8.ValidString(text) {
			t.Skip("each byte that is no text becomes three")
		}
		s := &scope{lookups: new(int64)}
		if err := s.set("A", int64(len(a))); err != nil {
			t.Fatal(err)
		}
		if err := s.set("B", int64(len(b))); err != nil {
			t.Fatal(err)
		}
		most, err := s.growth(text, '\\')
		if err != nil {
			return
		}
		for _, lex := range []*shell.Lex{shell.NewLex('\\'), {SkipProcessQuotes: true}, {RawQuotes: true, RawEscapes: true, SkipUnsetEnv: true}} {
			got, _, err := lex.ProcessWord(text, shell.EnvsFromSlice(env))
			if err == nil && int64(len(got)) > int64(len(text))+most {
				t.Errorf("%q becomes %d bytes, not at most %d + %d", text, len(got), len(text), most)
			}
		}
	})
}
