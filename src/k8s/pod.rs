//! The manifest of the pod (Kubernetes API, core/v1 Pod).

use serde_json::{Map, Value, json};

/// Container that puts the binary in place.
pub const INIT: &str = "esgz";
/// Container of the image that is profiled.
pub const WORKLOAD: &str = "workload";
/// Container that prints the profile.
pub const COLLECT: &str = "collect";
/// Where the binary is in the workload's container.
pub const BIN: &str = "/esgz-bin";
/// Where the workload leaves the profile.
pub const OUT: &str = "/esgz-out";
/// The profile in [`OUT`].
pub const PROFILE: &str = "profile.json";
/// What start-up wrote, in [`OUT`], where it is asked for.
pub const CAPTURE: &str = "capture.tar";
/// Most bytes that [`CAPTURE`] may have: what compresses into a log has fewer.
pub const MAX_CAPTURE: u64 = 256 << 20;
/// The image of ours has the binary there and nothing else.
const IN_IMAGE: &str = "/esgz";
const GPU: &str = "nvidia.com/gpu";

/// An amount of a resource: what is reserved, and the most that may be used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Amount {
    /// Reserved, as a Kubernetes quantity.
    pub request: String,
    /// The most, where there is a limit.
    pub limit: Option<String>,
}

/// What decides the pod.
#[derive(Debug, Clone, Default)]
pub struct Spec {
    /// Name of the pod.
    pub name: String,
    /// Namespace, where it is not the one that kubectl uses anyway.
    pub namespace: Option<String>,
    /// The image to profile, as the kubelet is to pull it.
    pub image: String,
    /// An image with the binary.
    pub esgz_image: String,
    /// The workload's command.
    pub command: Vec<String>,
    /// What of `esgz profile run` stands between its `-o FILE` and the command.
    pub recorder: Vec<String>,
    /// Seconds that the collecting container waits for the profile, and the pod lives.
    pub seconds: u64,
    /// Whether start-up's writes are to be collected too.
    pub capture: bool,
    /// The workload may do everything, which recording through the kernel needs. Otherwise the pod keeps to the pod security
    /// level "restricted".
    pub privileged: bool,
    /// User id of all containers where the pod is not privileged; without one the images decide, and "restricted" is not kept.
    pub user: Option<u32>,
    /// GPUs of NVIDIA's device plugin.
    pub gpus: Option<u32>,
    /// CPUs.
    pub cpu: Option<Amount>,
    /// Memory.
    pub memory: Option<Amount>,
    /// Size of `/dev/shm`, as a quantity.
    pub shm: Option<String>,
    /// Claims and where they are mounted.
    pub claims: Vec<(String, String)>,
    /// Variables of the workload.
    pub env: Vec<(String, String)>,
    /// Secrets whose keys become variables of the workload.
    pub env_secrets: Vec<String>,
    /// Labels of the pod.
    pub labels: Vec<(String, String)>,
    /// Labels that a node must have.
    pub node_selector: Vec<(String, String)>,
    /// Secrets with registry credentials.
    pub pull_secrets: Vec<String>,
    /// Service account.
    pub service_account: Option<String>,
    /// Runtime class.
    pub runtime_class: Option<String>,
}

/// The kubelet replaces `$(NAME)` in commands and values, and `$$` by `$`: what the user wrote is to arrive as it is.
fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

fn object(pairs: &[(String, String)]) -> Value {
    pairs.iter().map(|(k, v)| (k.clone(), Value::from(v.as_str()))).collect::<Map<_, _>>().into()
}

impl Spec {
    /// The pod.
    pub fn pod(&self) -> Value {
        let mut labels = vec![("app.kubernetes.io/name".to_owned(), "esgz-profile".to_owned())];
        labels.extend(self.labels.iter().cloned());
        let mut metadata = Map::new();
        metadata.insert("name".into(), self.name.as_str().into());
        if let Some(namespace) = &self.namespace {
            metadata.insert("namespace".into(), namespace.as_str().into());
        }
        metadata.insert("labels".into(), object(&labels));

        let mut spec = Map::new();
        let mut set = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                spec.insert(key.into(), value);
            }
        };
        set("restartPolicy", Some("Never".into()));
        set("activeDeadlineSeconds", Some(self.seconds.into()));
        set("serviceAccountName", self.service_account.as_deref().map(Into::into));
        set("runtimeClassName", self.runtime_class.as_deref().map(Into::into));
        set("nodeSelector", Some(object(&self.node_selector)).filter(|_| !self.node_selector.is_empty()));
        let names = |list: &[String]| Value::from(list.iter().map(|n| json!({ "name": n })).collect::<Vec<_>>());
        set("imagePullSecrets", Some(names(&self.pull_secrets)).filter(|_| !self.pull_secrets.is_empty()));
        let taint = || json!([{ "key": GPU, "operator": "Exists", "effect": "NoSchedule" }]);
        set("tolerations", self.gpus.map(|_| taint()));
        set("securityContext", (!self.privileged).then(|| self.pod_security()));
        set("initContainers", Some(json!([self.ours(INIT, &["profile", "k8s-copy", BIN], &[("bin", BIN)])])));
        set("containers", Some(json!([self.workload(), self.collect()])));
        set("volumes", Some(self.volumes()));
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec })
    }

    fn pod_security(&self) -> Value {
        let mut context = json!({ "seccompProfile": { "type": "RuntimeDefault" } });
        if let Some(user) = self.user {
            context["runAsNonRoot"] = true.into();
            context["runAsUser"] = user.into();
            context["fsGroup"] = user.into();
        }
        context
    }

    /// A container of our own image. It needs no right at all: what it reads and writes is open to all.
    fn ours(&self, name: &str, arguments: &[&str], mounts: &[(&str, &str)]) -> Value {
        let command: Vec<&str> = [&[IN_IMAGE], arguments].concat();
        let mut security = no_rights();
        security["readOnlyRootFilesystem"] = true.into();
        json!({
            "name": name, "image": self.esgz_image, "command": command,
            "resources": { "requests": { "cpu": "10m", "memory": "32Mi" } },
            "securityContext": security,
            "volumeMounts": mounts.iter().map(|(n, p)| json!({ "name": n, "mountPath": p })).collect::<Vec<_>>(),
        })
    }

    fn collect(&self) -> Value {
        let seconds = self.seconds.to_string();
        let mut arguments = vec!["profile", "k8s-collect", OUT, "--timeout", &seconds];
        arguments.extend(self.capture.then_some("--capture"));
        self.ours(COLLECT, &arguments, &[("out", OUT)])
    }

    fn workload(&self) -> Value {
        let mut command =
            vec![format!("{BIN}/esgz"), "profile".into(), "run".into(), "-o".into(), format!("{OUT}/{PROFILE}")];
        command.extend(self.recorder.iter().map(|a| literal(a)));
        if self.capture {
            command.extend(["--capture".into(), format!("{OUT}/{CAPTURE}")]);
        }
        command.push("--".into());
        command.extend(self.command.iter().map(|a| literal(a)));
        let mut container = json!({ "name": WORKLOAD, "image": self.image, "command": command });
        let env = |(name, value): &(String, String)| json!({ "name": name, "value": literal(value) });
        if !self.env.is_empty() {
            container["env"] = self.env.iter().map(env).collect();
        }
        if !self.env_secrets.is_empty() {
            container["envFrom"] = self.env_secrets.iter().map(|n| json!({ "secretRef": { "name": n } })).collect();
        }
        let (requests, limits) = self.resources();
        if !requests.is_empty() {
            container["resources"]["requests"] = requests.into();
        }
        if !limits.is_empty() {
            container["resources"]["limits"] = limits.into();
        }
        // The kernel's tracing is root's alone, whatever user the image has.
        let root = || json!({ "privileged": true, "runAsUser": 0, "runAsGroup": 0, "runAsNonRoot": false });
        container["securityContext"] = if self.privileged { root() } else { no_rights() };
        let mut mounts = vec![
            json!({ "name": "bin", "mountPath": BIN, "readOnly": true }),
            json!({ "name": "out", "mountPath": OUT }),
        ];
        mounts.extend(self.shm.iter().map(|_| json!({ "name": "shm", "mountPath": "/dev/shm" })));
        let claims = self.claims.iter().enumerate();
        mounts.extend(claims.map(|(i, (_, path))| json!({ "name": format!("claim-{i}"), "mountPath": path })));
        container["volumeMounts"] = mounts.into();
        container
    }

    fn resources(&self) -> (Map<String, Value>, Map<String, Value>) {
        let (mut requests, mut limits) = (Map::new(), Map::new());
        for (name, amount) in [("cpu", &self.cpu), ("memory", &self.memory)] {
            let Some(amount) = amount else { continue };
            requests.insert(name.into(), amount.request.as_str().into());
            if let Some(limit) = &amount.limit {
                limits.insert(name.into(), limit.as_str().into());
            }
        }
        // Of a device the request is the limit.
        if let Some(gpus) = self.gpus {
            limits.insert(GPU.into(), gpus.into());
        }
        (requests, limits)
    }

    fn volumes(&self) -> Value {
        let mut volumes = vec![json!({ "name": "bin", "emptyDir": {} }), json!({ "name": "out", "emptyDir": {} })];
        let shm = |size: &String| json!({ "name": "shm", "emptyDir": { "medium": "Memory", "sizeLimit": size } });
        volumes.extend(self.shm.iter().map(shm));
        let claim = |(i, (name, _)): (usize, &(String, String))| json!({ "name": format!("claim-{i}"), "persistentVolumeClaim": { "claimName": name } });
        volumes.extend(self.claims.iter().enumerate().map(claim));
        volumes.into()
    }
}

fn no_rights() -> Value {
    json!({ "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> Spec {
        Spec {
            name: "p".into(),
            image: "h.io/a:t".into(),
            esgz_image: "h.io/esgz:1".into(),
            command: vec!["sh".into(), "-c".into(), "echo $(HOME) $$".into()],
            recorder: vec!["--until-http".into(), "http://127.0.0.1:80/$(x)".into()],
            seconds: 99,
            ..Spec::default()
        }
    }

    /// What the kubelet makes of a value (Kubernetes API, Container.command): with no variables set.
    fn expanded(text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('$') {
            out.push_str(before);
            out.push('$');
            rest = behind.strip_prefix('$').unwrap_or(behind);
        }
        out + rest
    }

    #[test]
    fn a_command_arrives_as_it_was_given() {
        let pod = spec().pod();
        let command = pod["spec"]["containers"][0]["command"].as_array().expect("a list");
        let words: Vec<_> = command.iter().map(|w| expanded(w.as_str().expect("a word"))).collect();
        let given = ["--until-http", "http://127.0.0.1:80/$(x)", "--", "sh", "-c", "echo $(HOME) $$"];
        assert_eq!(words[3..], [&["-o", "/esgz-out/profile.json"], &given[..]].concat());
        assert!(
            !command.iter().any(|w| w.as_str().is_some_and(|w| w.replace("$$", "").contains('$'))),
            "nothing expands"
        );
    }

    #[test]
    fn a_restricted_pod_keeps_the_rules_of_its_level() {
        let pod =
            Spec { user: Some(1000), shm: Some("1Gi".into()), claims: vec![("c".into(), "/m".into())], ..spec() }.pod();
        let spec = &pod["spec"];
        // Kubernetes, "Pod Security Standards", Restricted.
        assert_eq!(spec["securityContext"]["runAsNonRoot"], true);
        assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        for list in ["initContainers", "containers"] {
            for container in spec[list].as_array().expect("a list") {
                let security = &container["securityContext"];
                assert_eq!(security["allowPrivilegeEscalation"], false);
                assert_eq!(security["capabilities"], json!({ "drop": ["ALL"] }));
                for key in ["privileged", "runAsUser", "procMount"] {
                    assert!(security.get(key).is_none(), "{key}");
                }
            }
        }
        for volume in spec["volumes"].as_array().expect("a list") {
            assert!(volume.get("emptyDir").or(volume.get("persistentVolumeClaim")).is_some(), "{volume}");
        }
        assert!(Spec { user: None, ..self::spec() }.pod()["spec"]["securityContext"].get("runAsNonRoot").is_none());
    }

    #[test]
    fn only_the_workload_is_privileged() {
        let pod = Spec { privileged: true, user: Some(5), ..spec() }.pod();
        let containers = pod["spec"]["containers"].as_array().expect("a list");
        assert_eq!(containers[0]["securityContext"]["privileged"], true);
        assert_eq!(containers[0]["securityContext"]["runAsUser"], 0);
        assert!(containers[1]["securityContext"].get("privileged").is_none());
        assert!(pod["spec"].get("securityContext").is_none());
    }

    #[test]
    fn what_is_asked_for_is_in_the_pod() {
        let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        let pod = Spec {
            namespace: Some("n".into()),
            capture: true,
            gpus: Some(2),
            cpu: Some(Amount { request: "4".into(), limit: None }),
            memory: Some(Amount { request: "8Gi".into(), limit: Some("16Gi".into()) }),
            shm: Some("2Gi".into()),
            claims: vec![pair("models", "/models")],
            env: vec![pair("A", "$B")],
            env_secrets: vec!["hf".into()],
            labels: vec![pair("team", "ml")],
            node_selector: vec![pair("cloud.google.com/gke-accelerator", "nvidia-l4")],
            pull_secrets: vec!["reg".into()],
            service_account: Some("sa".into()),
            runtime_class: Some("nvidia".into()),
            ..spec()
        }
        .pod();
        let (spec, workload) = (&pod["spec"], &pod["spec"]["containers"][0]);
        assert_eq!(
            workload["resources"],
            json!({
                "requests": { "cpu": "4", "memory": "8Gi" }, "limits": { "memory": "16Gi", "nvidia.com/gpu": 2 },
            })
        );
        assert_eq!(workload["env"], json!([{ "name": "A", "value": "$$B" }]));
        assert_eq!(workload["envFrom"], json!([{ "secretRef": { "name": "hf" } }]));
        let paths: Vec<_> =
            workload["volumeMounts"].as_array().expect("a list").iter().map(|m| &m["mountPath"]).collect();
        assert_eq!(paths, ["/esgz-bin", "/esgz-out", "/dev/shm", "/models"]);
        assert_eq!(spec["volumes"][3]["persistentVolumeClaim"]["claimName"], "models");
        assert_eq!(spec["tolerations"][0]["key"], "nvidia.com/gpu");
        assert_eq!(spec["nodeSelector"]["cloud.google.com/gke-accelerator"], "nvidia-l4");
        assert_eq!((&spec["serviceAccountName"], &spec["runtimeClassName"]), (&json!("sa"), &json!("nvidia")));
        assert_eq!(spec["imagePullSecrets"], json!([{ "name": "reg" }]));
        assert_eq!(pod["metadata"]["labels"]["team"], "ml");
        assert_eq!(pod["metadata"]["namespace"], "n");
        assert_eq!(spec["containers"][1]["command"].as_array().and_then(|c| c.last()), Some(&json!("--capture")));
    }
}
