// Command containerd-stargz-grpc serves the stargz snapshotter over gRPC, as the project's own daemon of that name does.
//
// The project publishes its daemon as a binary only, not as a Go module, so this main puts the published parts together:
// the same flags, the same TOML configuration (parsed by the same go-toml v1, whose `default` struct tags matter: they
// make directory_cache.direct true), the docker-config, kubeconfig and CRI keychains, metrics, and a clean unmount on
// SIGTERM and SIGINT. What the daemon has and this main has not (metadata_store = "db", ipfs, fuse_manager) is refused.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	golog "log"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/contrib/snapshotservice"
	"github.com/containerd/log"
	stargzfs "github.com/containerd/stargz-snapshotter/fs"
	"github.com/containerd/stargz-snapshotter/metadata/memory"
	"github.com/containerd/stargz-snapshotter/service"
	"github.com/containerd/stargz-snapshotter/service/keychain/cri"
	"github.com/containerd/stargz-snapshotter/service/keychain/dockerconfig"
	"github.com/containerd/stargz-snapshotter/service/keychain/kubeconfig"
	"github.com/containerd/stargz-snapshotter/service/resolver"
	metrics "github.com/docker/go-metrics"
	"github.com/pelletier/go-toml"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	defaultConfig       = "/etc/containerd-stargz-grpc/config.toml"
	defaultImageService = "/run/containerd/containerd.sock"
)

// config is the daemon's configuration file: the service's own keys and the daemon's.
type config struct {
	service.Config
	MetricsAddress string `toml:"metrics_address"`
	NoPrometheus   bool   `toml:"no_prometheus"`
	DebugAddress   string `toml:"debug_address"`
	IPFS           bool   `toml:"ipfs"`
	MetadataStore  string `toml:"metadata_store" default:"memory"`
	FuseManager    struct {
		Enable bool `toml:"enable" default:"false"`
	} `toml:"fuse_manager"`
}

func main() {
	address := flag.String("address", "/run/containerd-stargz-grpc/containerd-stargz-grpc.sock", "address for the snapshotter's GRPC server")
	configPath := flag.String("config", defaultConfig, "path to the configuration file")
	logLevel := flag.String("log-level", log.InfoLevel.String(), "set the logging level [trace, debug, info, warn, error, fatal, panic]")
	root := flag.String("root", "/var/lib/containerd-stargz-grpc", "path to the root directory for this snapshotter")
	version := flag.Bool("version", false, "print the version")
	flag.Parse()
	if *version {
		fmt.Println("containerd-stargz-grpc", moduleVersion())
		return
	}
	ctx := log.WithLogger(context.Background(), log.L)
	if err := run(ctx, *address, *configPath, *logLevel, *root); err != nil {
		log.G(ctx).WithError(err).Fatal("containerd-stargz-grpc failed")
	}
	log.G(ctx).Info("Exiting")
}

func run(ctx context.Context, address, configPath, logLevel, root string) error {
	if err := log.SetFormat(log.JSONFormat); err != nil {
		return err
	}
	if err := log.SetLevel(logLevel); err != nil {
		return err
	}
	golog.SetOutput(log.G(ctx).WriterLevel(log.DebugLevel)) // go-fuse writes there

	cfg, err := load(configPath)
	if err != nil {
		return err
	}
	if effective, err := json.Marshal(cfg.Config.Config); err == nil {
		log.G(ctx).WithField("config", string(effective)).Infof("containerd-stargz-grpc %s, configuration (0: the default)", moduleVersion())
	}
	if err := service.Supported(root); err != nil {
		return fmt.Errorf("the snapshotter cannot work in %s: %w", root, err)
	}

	failed := make(chan error, 4)
	rpc := grpc.NewServer()
	creds, err := keychains(ctx, rpc, cfg, address, failed)
	if err != nil {
		return err
	}
	rs, err := service.NewStargzSnapshotterService(ctx, root, &cfg.Config, service.WithCredsFuncs(creds...),
		service.WithFilesystemOptions(stargzfs.WithMetadataStore(memory.NewReader)))
	if err != nil {
		return err
	}
	defer func() { // the FUSE servers live in this process: leave no mount behind
		if err := rs.Close(); err != nil {
			log.G(ctx).WithError(err).Warn("failed to close the snapshotter")
		}
	}()
	snapshotsapi.RegisterSnapshotsServer(rpc, snapshotservice.FromSnapshotter(rs))

	if cfg.MetricsAddress != "" && !cfg.NoPrometheus {
		mux := http.NewServeMux()
		mux.Handle("/metrics", metrics.Handler())
		if err := serveHTTP("tcp", cfg.MetricsAddress, mux, failed); err != nil {
			return err
		}
	}
	if cfg.DebugAddress != "" {
		mux := http.NewServeMux()
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
		if err := serveHTTP("unix", cfg.DebugAddress, mux, failed); err != nil {
			return err
		}
	}
	if err := serveGRPC(address, rpc, failed); err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	select {
	case s := <-stop:
		log.G(ctx).Infof("Got %v", s)
		return nil
	case err := <-failed:
		return err
	}
}

// load reads the file; only the default path may be missing.
func load(path string) (*config, error) {
	data, err := os.ReadFile(path)
	if err != nil && (!os.IsNotExist(err) || path != defaultConfig) {
		return nil, err
	}
	tree, err := toml.LoadBytes(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var cfg config
	if err := tree.Unmarshal(&cfg); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	switch {
	case cfg.MetadataStore != "memory":
		return nil, fmt.Errorf("%s: metadata_store = %q: this build has only \"memory\"", path, cfg.MetadataStore)
	case cfg.IPFS:
		return nil, fmt.Errorf("%s: ipfs = true: this build has no IPFS support", path)
	case cfg.FuseManager.Enable:
		return nil, fmt.Errorf("%s: fuse_manager.enable = true: this build has no FUSE manager", path)
	}
	if cfg.PassThrough {
		cfg.Direct = true // passthrough needs the cache to hand out files, as in the daemon
	}
	// The daemon and the file system each read no_prometheus; TOML gives a doubled key to the outer struct only.
	cfg.Config.Config.NoPrometheus = cfg.NoPrometheus
	return &cfg, nil
}

// keychains are asked in this order: docker config, Kubernetes secrets, credentials seen in CRI pulls. The last one is a
// proxy of the CRI image service that kubelet (or crictl --image-endpoint) talks to instead of containerd.
func keychains(ctx context.Context, rpc *grpc.Server, cfg *config, address string, failed chan<- error) ([]resolver.Credential, error) {
	creds := []resolver.Credential{dockerconfig.NewDockerconfigKeychain(ctx)}
	if cfg.KubeconfigKeychainConfig.EnableKeychain {
		var opts []kubeconfig.Option
		if cfg.KubeconfigPath != "" {
			opts = append(opts, kubeconfig.WithKubeconfigPath(cfg.KubeconfigPath))
		}
		creds = append(creds, kubeconfig.NewKubeconfigKeychain(ctx, opts...))
	}
	if !cfg.CRIKeychainConfig.EnableKeychain {
		return creds, nil
	}
	backend := cfg.ImageServicePath
	if backend == "" {
		backend = defaultImageService
	}
	f, server := cri.NewCRIKeychain(ctx, func() (runtime.ImageServiceClient, error) {
		conn, err := grpc.NewClient("unix://"+backend, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20), grpc.MaxCallSendMsgSize(16<<20)))
		if err != nil {
			return nil, err
		}
		return runtime.NewImageServiceClient(conn), nil
	})
	creds = append(creds, f)
	if cfg.ListenPath == "" || cfg.ListenPath == address {
		runtime.RegisterImageServiceServer(rpc, server)
		return creds, nil
	}
	own := grpc.NewServer()
	runtime.RegisterImageServiceServer(own, server)
	return creds, serveGRPC(cfg.ListenPath, own, failed)
}

func listen(network, address string) (net.Listener, error) {
	if network == "unix" {
		if err := os.MkdirAll(filepath.Dir(address), 0o700); err != nil {
			return nil, err
		}
		if err := os.RemoveAll(address); err != nil { // a socket left by a crash
			return nil, err
		}
	}
	return net.Listen(network, address)
}

func serveGRPC(path string, server *grpc.Server, failed chan<- error) error {
	l, err := listen("unix", path)
	if err != nil {
		return err
	}
	go func() { failed <- fmt.Errorf("serving %s: %w", path, server.Serve(l)) }()
	return nil
}

func serveHTTP(network, address string, mux http.Handler, failed chan<- error) error {
	l, err := listen(network, address)
	if err != nil {
		return err
	}
	go func() { failed <- fmt.Errorf("serving %s: %w", address, http.Serve(l, mux)) }()
	return nil
}

func moduleVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == "github.com/containerd/stargz-snapshotter" {
				return m.Version
			}
		}
	}
	return "unknown"
}
