// Command estargz-oracle checks eStargz and zstd:chunked layers with the reference library: an independent reader, so that our writer is
// never judged by our own reader alone.
//
// For each argument, an OCI layout directory or one blob file: every layer annotated with a TOC digest is opened with
// estargz.Open, its TOC checked against the annotation, every chunk of every regular file read through the reader and
// checked against its chunk digest, every whole file against its file digest where the TOC has one, the same once more through
// the snapshotter's own metadata reader (metadata/memory), and the decompressed blob against the image's diffID. One line a
// layer; exit status 1 at the first difference.
package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/containerd/stargz-snapshotter/estargz/zstdchunked"
	"github.com/opencontainers/go-digest"
)

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      digest.Digest     `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations"`
}

// document is an index or a manifest; which of the two shows in the fields that are filled.
type document struct {
	Manifests []descriptor `json:"manifests"`
	Config    descriptor   `json:"config"`
	Layers    []descriptor `json:"layers"`
	Subject   *descriptor  `json:"subject"`
}

type oracle struct {
	layout string
	seen   map[digest.Digest]bool
	layers int
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: estargz-oracle LAYOUT_DIR_OR_BLOB...")
		os.Exit(2)
	}
	for _, arg := range os.Args[1:] {
		if err := check(arg); err != nil {
			fmt.Fprintf(os.Stderr, "estargz-oracle: %s: %v\n", arg, err)
			os.Exit(1)
		}
	}
}

func check(arg string) error {
	info, err := os.Stat(arg)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return layer(arg, filepath.Base(arg), "", "")
	}
	o := &oracle{layout: arg, seen: map[digest.Digest]bool{}}
	raw, err := os.ReadFile(filepath.Join(arg, "index.json"))
	if err != nil {
		return err
	}
	if err := o.document(raw); err != nil {
		return err
	}
	if o.layers == 0 {
		return fmt.Errorf("no layer with a %s annotation", estargz.TOCJSONDigestAnnotation)
	}
	return nil
}

func (o *oracle) path(d digest.Digest) string {
	return filepath.Join(o.layout, "blobs", d.Algorithm().String(), d.Encoded())
}

// blob reads a small blob and checks its size and digest.
func (o *oracle) blob(d descriptor) ([]byte, error) {
	if err := d.Digest.Validate(); err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(o.path(d.Digest))
	if err != nil {
		return nil, err
	}
	if got := digest.FromBytes(raw); got != d.Digest || int64(len(raw)) != d.Size {
		return nil, fmt.Errorf("blob %s: is %s of %d bytes, its descriptor says %d bytes", d.Digest, got, len(raw), d.Size)
	}
	return raw, nil
}

func (o *oracle) document(raw []byte) error {
	var doc document
	if err := json.Unmarshal(raw, &doc); err != nil {
		return err
	}
	for _, m := range doc.Manifests {
		if o.seen[m.Digest] {
			continue
		}
		o.seen[m.Digest] = true
		raw, err := o.blob(m)
		if err != nil {
			return err
		}
		if err := o.document(raw); err != nil {
			return fmt.Errorf("%s: %w", m.Digest, err)
		}
	}
	if len(doc.Layers) == 0 {
		return nil
	}
	var config struct {
		RootFS struct {
			DiffIDs []digest.Digest `json:"diff_ids"`
		} `json:"rootfs"`
	}
	raw, err := o.blob(doc.Config)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, &config); err != nil {
		return fmt.Errorf("config %s: %w", doc.Config.Digest, err)
	}
	for i, l := range doc.Layers {
		toc, ok := l.Annotations[estargz.TOCJSONDigestAnnotation]
		if !ok {
			if len(config.RootFS.DiffIDs) > 0 { // an artifact has layers, but no file systems
				fmt.Printf("skip %s %s: no TOC digest\n", short(l.Digest), l.MediaType)
			}
			continue
		}
		if len(config.RootFS.DiffIDs) != len(doc.Layers) {
			return fmt.Errorf("%d layers, but %d diffIDs in the config", len(doc.Layers), len(config.RootFS.DiffIDs))
		}
		o.layers++
		if info, err := os.Stat(o.path(l.Digest)); err != nil {
			return err
		} else if info.Size() != l.Size {
			return fmt.Errorf("layer %d: blob %s has %d bytes, its descriptor says %d", i, l.Digest, info.Size(), l.Size)
		}
		if err := layer(o.path(l.Digest), short(l.Digest), digest.Digest(toc), config.RootFS.DiffIDs[i], l.Digest, digest.Digest(l.Annotations[estargz.StoreUncompressedSizeAnnotation])); err != nil {
			return fmt.Errorf("layer %d, %s: %w", i, l.Digest, err)
		}
	}
	return nil
}

func short(d digest.Digest) string {
	return d.Encoded()[:min(12, len(d.Encoded()))]
}

// layer checks one blob. Without a toc or diffID (a bare file) those two comparisons are left out; expected holds the
// blob digest and the uncompressed size as the annotation spells it.
func layer(path, name string, toc, diffID digest.Digest, expected ...digest.Digest) error {
	start := time.Now()
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	r, err := estargz.Open(io.NewSectionReader(f, 0, info.Size()), estargz.WithDecompressors(&zstdchunked.Decompressor{}))
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	if toc == "" {
		toc = r.TOCDigest()
	}
	verifiers, err := r.VerifyTOC(toc)
	if err != nil && r.TOCDigest() == toc && strings.Contains(err.Error(), "found twice") {
		verifiers, err = entryVerifier{}, nil // chunks that share a gzip member (innerOffset): the library's map is by member
	}
	if err != nil {
		return err
	}
	files, chunks, bytesRead, err := contents(r, verifiers)
	if err != nil {
		return err
	}
	nodes, viewed, err := snapshotterView(io.NewSectionReader(f, 0, info.Size()), r)
	if err != nil {
		return err
	}
	if viewed != bytesRead {
		return fmt.Errorf("the snapshotter's reader shows %d bytes of files, the library %d", viewed, bytesRead)
	}

	// The whole blob once more, in order: blob digest, diffID and uncompressed size.
	whole, plain := digest.SHA256.Digester(), digest.SHA256.Digester()
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	in := bufio.NewReaderSize(io.TeeReader(f, whole.Hash()), 1<<20)
	z, err := decompress(in)
	if err != nil {
		return err
	}
	size, err := io.Copy(plain.Hash(), z)
	if err != nil {
		return fmt.Errorf("decompressing: %w", err)
	}
	if diffID != "" && plain.Digest() != diffID {
		return fmt.Errorf("diffID is %s, the config says %s", plain.Digest(), diffID)
	}
	if len(expected) > 0 && whole.Digest() != expected[0] {
		return fmt.Errorf("blob digest is %s", whole.Digest())
	}
	if len(expected) > 1 && expected[1] != "" && string(expected[1]) != fmt.Sprint(size) {
		return fmt.Errorf("%d bytes uncompressed, the annotation says %s", size, expected[1])
	}
	fmt.Printf("ok   %s toc %s: %d files, %d chunks, %d bytes of files, %d bytes of tar; %d nodes as the snapshotter shows them, %.1f s\n", name, short(toc), files, chunks,
		bytesRead, size, nodes, time.Since(start).Seconds())
	return nil
}

// decompress gives the archive of a layer of either format.
func decompress(in *bufio.Reader) (io.ReadCloser, error) {
	if magic, err := in.Peek(4); err == nil && bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}) {
		return (&zstdchunked.Decompressor{}).Reader(in)
	}
	return gzip.NewReader(in)
}

// entryVerifier checks a chunk against the digest in its own TOC entry.
type entryVerifier struct{}

func (entryVerifier) Verifier(c *estargz.TOCEntry) (digest.Verifier, error) {
	d, err := digest.Parse(c.ChunkDigest)
	if err != nil {
		return nil, fmt.Errorf("chunk digest %q: %w", c.ChunkDigest, err)
	}
	return d.Verifier(), nil
}

// contents reads every chunk of every regular file, in blob order, through the reader.
func contents(r *estargz.Reader, verifiers estargz.TOCEntryVerifier) (files, chunks int, total int64, err error) {
	root, ok := r.Lookup("")
	if !ok {
		return 0, 0, 0, fmt.Errorf("no root directory in the TOC")
	}
	var regular []*estargz.TOCEntry
	seen := map[*estargz.TOCEntry]bool{} // hard links lead to one entry
	var walk func(e *estargz.TOCEntry)
	walk = func(e *estargz.TOCEntry) {
		if seen[e] {
			return
		}
		seen[e] = true
		if e.Type == "reg" {
			regular = append(regular, e)
		}
		e.ForeachChild(func(_ string, c *estargz.TOCEntry) bool { walk(c); return true })
	}
	walk(root)
	sort.Slice(regular, func(i, j int) bool {
		a, b := regular[i], regular[j]
		return a.Offset < b.Offset || a.Offset == b.Offset && a.InnerOffset < b.InnerOffset
	})
	var buf []byte
	for _, e := range regular {
		files++
		content, err := r.OpenFile(e.Name)
		if err != nil {
			return files, chunks, total, err
		}
		file := digest.SHA256.Digester()
		for off := int64(0); off < e.Size; {
			c, ok := r.ChunkEntryForOffset(e.Name, off)
			if !ok {
				return files, chunks, total, fmt.Errorf("%s: no chunk at %d", e.Name, off)
			}
			size := c.ChunkSize
			if c.ChunkOffset != off || size <= 0 || off+size > e.Size {
				return files, chunks, total, fmt.Errorf("%s: chunk at %d starts at %d and has %d of %d bytes", e.Name, off, c.ChunkOffset, size, e.Size)
			}
			if int64(cap(buf)) < size {
				buf = make([]byte, size)
			}
			p := buf[:size]
			if n, err := content.ReadAt(p, off); int64(n) != size {
				return files, chunks, total, fmt.Errorf("%s: chunk at %d: %d of %d bytes: %w", e.Name, off, n, size, err)
			}
			v, err := verifiers.Verifier(c)
			if err != nil {
				return files, chunks, total, fmt.Errorf("%s: chunk at %d: %w", e.Name, off, err)
			}
			if _, err := io.Copy(v, bytes.NewReader(p)); err != nil {
				return files, chunks, total, err
			}
			if !v.Verified() {
				return files, chunks, total, fmt.Errorf("%s: chunk at %d of %d bytes: its digest %s does not match what the blob holds (%s)", e.Name, off, size, c.ChunkDigest, digest.FromBytes(p))
			}
			if _, err := file.Hash().Write(p); err != nil {
				return files, chunks, total, err
			}
			chunks++
			off += size
			total += size
		}
		if e.Digest != "" && strings.HasPrefix(e.Digest, "sha256:") && file.Digest().String() != e.Digest {
			return files, chunks, total, fmt.Errorf("%s: file digest is %s, the TOC says %s", e.Name, file.Digest(), e.Digest)
		}
	}
	return files, chunks, total, nil
}
