// Command estargz-reference converts the layers of an OCI layout with the reference library, as ctr-remote, nerdctl and
// BuildKit do it, so that scripts/bench-convert has something to be measured against: estargz.Build for one layer after
// another, its output hashed and written to a file, the gunzipped digest taken. No registry, no manifest: less work than
// a whole conversion.
//
// usage: estargz-reference [-level 9] [-chunk-size 4194304] [-min-chunk-size 0] LAYOUT_DIR TAG OUT_DIR
// Prints one JSON object: layers, bytes in, bytes out, and the layers' digests.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/opencontainers/go-digest"
)

type descriptor struct {
	Digest      digest.Digest     `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations"`
}

type document struct {
	Manifests []descriptor `json:"manifests"`
	Layers    []descriptor `json:"layers"`
}

type result struct {
	Layers   int             `json:"layers"`
	BytesIn  int64           `json:"bytes_in"`
	BytesOut int64           `json:"bytes_out"`
	Digests  []digest.Digest `json:"digests"`
}

func main() {
	level := flag.Int("level", 9, "gzip level (the library's default is 9)")
	chunk := flag.Int("chunk-size", 0, "bytes of a chunk (0: the library's default, 4 MiB)")
	min := flag.Int("min-chunk-size", 0, "smallest gzip member, bytes (0: one a file)")
	flag.Parse()
	if flag.NArg() != 3 {
		fmt.Fprintln(os.Stderr, "usage: estargz-reference [flags] LAYOUT_DIR TAG OUT_DIR")
		os.Exit(2)
	}
	options := []estargz.Option{estargz.WithCompressionLevel(*level), estargz.WithChunkSize(*chunk), estargz.WithMinChunkSize(*min)}
	if err := run(flag.Arg(0), flag.Arg(1), flag.Arg(2), options); err != nil {
		fmt.Fprintf(os.Stderr, "estargz-reference: %v\n", err)
		os.Exit(1)
	}
}

func blob(layout string, d digest.Digest) string {
	return filepath.Join(layout, "blobs", d.Algorithm().String(), d.Encoded())
}

func readJSON(path string, into any) error {
	bytes, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(bytes, into)
}

func run(layout, tag, out string, options []estargz.Option) error {
	var index, manifest document
	if err := readJSON(filepath.Join(layout, "index.json"), &index); err != nil {
		return err
	}
	found := false
	for _, m := range index.Manifests {
		if m.Annotations["org.opencontainers.image.ref.name"] == tag {
			found = true
			if err := readJSON(blob(layout, m.Digest), &manifest); err != nil {
				return err
			}
		}
	}
	if !found {
		return fmt.Errorf("no tag %q in %s", tag, layout)
	}
	r := result{Layers: len(manifest.Layers)}
	for i, l := range manifest.Layers {
		size, d, err := convert(blob(layout, l.Digest), filepath.Join(out, fmt.Sprintf("layer-%d", i)), options)
		if err != nil {
			return fmt.Errorf("layer %d (%s): %w", i, l.Digest, err)
		}
		r.BytesIn += l.Size
		r.BytesOut += size
		r.Digests = append(r.Digests, d)
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

func convert(in, out string, options []estargz.Option) (int64, digest.Digest, error) {
	f, err := os.Open(in)
	if err != nil {
		return 0, "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, "", err
	}
	b, err := estargz.Build(io.NewSectionReader(f, 0, info.Size()), options...)
	if err != nil {
		return 0, "", err
	}
	defer b.Close()
	w, err := os.Create(out)
	if err != nil {
		return 0, "", err
	}
	defer w.Close()
	digester := digest.Canonical.Digester()
	n, err := io.Copy(io.MultiWriter(w, digester.Hash()), b)
	if err != nil {
		return 0, "", err
	}
	return n, digester.Digest(), w.Close()
}
