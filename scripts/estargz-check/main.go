// estargz-check opens every eStargz layer of an OCI layout with the stock library, as the snapshotter does: footer, TOC by
// its digest, then every chunk of every file with its digest. It prints what it read, or fails with the first difference.
//
// usage: estargz-check LAYOUT MANIFEST_DIGEST
package main

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/containerd/stargz-snapshotter/estargz"
	digest "github.com/opencontainers/go-digest"
)

type descriptor struct {
	Digest      digest.Digest     `json:"digest"`
	Annotations map[string]string `json:"annotations"`
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: estargz-check LAYOUT MANIFEST_DIGEST")
		os.Exit(2)
	}
	if err := run(os.Args[1], digest.Digest(os.Args[2])); err != nil {
		fmt.Fprintln(os.Stderr, "estargz-check:", err)
		os.Exit(1)
	}
}

func run(layout string, manifest digest.Digest) error {
	blob := func(d digest.Digest) string { return filepath.Join(layout, "blobs", "sha256", d.Encoded()) }
	raw, err := os.ReadFile(blob(manifest))
	if err != nil {
		return err
	}
	var m struct {
		Layers []descriptor `json:"layers"`
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return err
	}
	for i, l := range m.Layers {
		toc, ok := l.Annotations[estargz.TOCJSONDigestAnnotation]
		if !ok {
			continue
		}
		files, chunks, err := layer(blob(l.Digest), digest.Digest(toc))
		if err != nil {
			return fmt.Errorf("layer %d (%s): %w", i, l.Digest, err)
		}
		fmt.Printf("layer %d: %d files, %d chunks\n", i, files, chunks)
	}
	return nil
}

func layer(name string, toc digest.Digest) (files, chunks int, err error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, 0, err
	}
	r, err := estargz.Open(io.NewSectionReader(f, 0, info.Size()))
	if err != nil {
		return 0, 0, err
	}
	verifier, err := r.VerifyTOC(toc)
	if err != nil {
		return 0, 0, err
	}
	// The archive of the whole blob is the other side of the comparison.
	gz, err := gzip.NewReader(io.NewSectionReader(f, 0, info.Size()))
	if err != nil {
		return 0, 0, err
	}
	archive := tar.NewReader(gz)
	for {
		h, err := archive.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return files, chunks, err
		}
		clean := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
		if clean == estargz.TOCTarName {
			continue
		}
		e, ok := r.Lookup(clean)
		if !ok {
			return files, chunks, fmt.Errorf("%q is not in the TOC", h.Name)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		whole := sha256.New()
		if _, err := io.Copy(whole, archive); err != nil {
			return files, chunks, err
		}
		n, err := file(r, verifier, clean, e, fmt.Sprintf("sha256:%x", whole.Sum(nil)))
		if err != nil {
			return files, chunks, fmt.Errorf("%q: %w", h.Name, err)
		}
		files, chunks = files+1, chunks+n
	}
	return files, chunks, nil
}

func file(r *estargz.Reader, verifier estargz.TOCEntryVerifier, name string, e *estargz.TOCEntry, want string) (int, error) {
	if e.Size == 0 {
		return 0, nil
	}
	content, err := r.OpenFile(name)
	if err != nil {
		return 0, err
	}
	whole := sha256.New()
	n := 0
	for at := int64(0); at < e.Size; n++ {
		chunk, ok := r.ChunkEntryForOffset(name, at)
		if !ok {
			return n, fmt.Errorf("no chunk at %d", at)
		}
		size := chunk.ChunkSize
		if size == 0 {
			size = e.Size - at
		}
		v, err := verifier.Verifier(chunk)
		if err != nil {
			return n, err
		}
		if _, err := io.Copy(io.MultiWriter(whole, v), io.NewSectionReader(content, at, size)); err != nil {
			return n, fmt.Errorf("chunk at %d: %w", at, err)
		}
		if !v.Verified() {
			return n, fmt.Errorf("chunk at %d has another digest", at)
		}
		at += size
	}
	if found := fmt.Sprintf("sha256:%x", whole.Sum(nil)); found != want || e.Digest != want {
		return n, fmt.Errorf("content %s, TOC %s: expected %s", found, e.Digest, want)
	}
	return n, nil
}
