//! What a pod's status says about where the profile is (Kubernetes API, `PodStatus`).

use serde_json::Value;

use super::line;
use super::pod::{COLLECT, INIT, WORKLOAD};

/// Reasons for which a container waits that time does not heal. `ErrImagePull` is none: it becomes `ImagePullBackOff` when the
/// second attempt fails too.
const FATAL: [&str; 7] = [
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "CrashLoopBackOff",
];

/// Where a container is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Container {
    /// Not started; why not, in the kubelet's words.
    Waiting {
        /// One word.
        reason: String,
        /// A sentence.
        message: String,
    },
    /// Running.
    Running,
    /// Ended.
    Ended {
        /// Exit code.
        code: i64,
        /// One word, such as `Completed` or `OOMKilled`.
        reason: String,
    },
}

/// What the status comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// No node yet; the scheduler's words.
    Unscheduled(String),
    /// On a node, the workload not started; the kubelet's words.
    Starting(String),
    /// The workload runs.
    Running,
    /// The workload ended; how.
    WorkloadEnded(String),
    /// The collecting container has printed everything.
    Collected,
    /// The collecting container failed; its log says why.
    CollectFailed(String),
    /// A container cannot start.
    Broken {
        /// The container.
        container: &'static str,
        /// The kubelet's words.
        said: String,
    },
    /// The pod was ended from outside; how.
    Killed(String),
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn words(reason: &str, message: &str) -> String {
    line(&[reason, message].iter().filter(|s| !s.is_empty()).copied().collect::<Vec<_>>().join(": "))
}

/// The state of a container by its name.
fn container(status: &Value, list: &str, name: &str) -> Container {
    let none = || Container::Waiting { reason: String::new(), message: String::new() };
    let all = status.get(list).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let Some(state) = all.iter().find(|c| text(c, "name") == name).and_then(|c| c.get("state")) else { return none() };
    if let Some(ended) = state.get("terminated") {
        let code = ended.get("exitCode").and_then(Value::as_i64).unwrap_or(-1);
        return Container::Ended { code, reason: words(text(ended, "reason"), text(ended, "message")) };
    }
    match state.get("waiting") {
        Some(waiting) => {
            Container::Waiting { reason: text(waiting, "reason").into(), message: text(waiting, "message").into() }
        }
        None if state.get("running").is_some() => Container::Running,
        None => none(),
    }
}

/// Reads a pod as the API gives it.
pub fn of(pod: &Value) -> State {
    let null = Value::Null;
    let status = pod.get("status").unwrap_or(&null);
    let (init, workload, collect) = (
        container(status, "initContainerStatuses", INIT),
        container(status, "containerStatuses", WORKLOAD),
        container(status, "containerStatuses", COLLECT),
    );
    match &collect {
        Container::Ended { code: 0, .. } => return State::Collected,
        Container::Ended { code, reason } if text(status, "reason").is_empty() => {
            return State::CollectFailed(format!("exit code {code} ({reason})"));
        }
        _ => {}
    }
    if text(status, "phase") == "Failed" && !text(status, "reason").is_empty() {
        return State::Killed(words(text(status, "reason"), text(status, "message")));
    }
    for (name, state) in [(INIT, &init), (WORKLOAD, &workload), (COLLECT, &collect)] {
        match state {
            Container::Waiting { reason, message } if FATAL.contains(&reason.as_str()) => {
                return State::Broken { container: name, said: words(reason, message) };
            }
            Container::Ended { code, reason } if name == INIT && *code != 0 => {
                return State::Broken { container: name, said: format!("it ended with exit code {code} ({reason})") };
            }
            _ => {}
        }
    }
    match &workload {
        Container::Ended { code, reason } => {
            State::WorkloadEnded(format!("the workload's exit code is {code} ({reason})"))
        }
        Container::Running => State::Running,
        Container::Waiting { reason, message } => match unscheduled(status) {
            Some(said) => State::Unscheduled(said),
            None => State::Starting(words(reason, message)),
        },
    }
}

/// Why no node was found yet.
fn unscheduled(status: &Value) -> Option<String> {
    let all = status.get("conditions").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let Some(scheduled) = all.iter().find(|c| text(c, "type") == "PodScheduled") else {
        return Some("not looked at by the scheduler yet".into());
    };
    (text(scheduled, "status") != "True").then(|| words(text(scheduled, "reason"), text(scheduled, "message")))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::needless_pass_by_value, reason = "values are made where they are passed")]

    use serde_json::json;

    use super::*;

    fn scheduled(containers: Value, init: Value) -> Value {
        json!({ "status": {
            "phase": "Pending", "conditions": [{ "type": "PodScheduled", "status": "True" }],
            "initContainerStatuses": [{ "name": "esgz", "state": init }], "containerStatuses": containers,
        } })
    }

    fn two(workload: Value, collect: Value) -> Value {
        let list = json!([{ "name": "collect", "state": collect }, { "name": "workload", "state": workload }]);
        scheduled(list, json!({ "terminated": { "exitCode": 0, "reason": "Completed" } }))
    }

    #[test]
    fn a_pod_goes_through_its_states() {
        let waiting = |reason: &str| json!({ "waiting": { "reason": reason, "message": "as\nsaid" } });
        let ended = |code: i64, reason: &str| json!({ "terminated": { "exitCode": code, "reason": reason } });
        let running = || json!({ "running": {} });
        let not = json!({ "status": { "phase": "Pending", "conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available",
        }] } });
        let killed = json!({ "status": { "phase": "Failed", "reason": "Evicted", "message": "low on memory" } });
        for (pod, expected) in [
            (json!({}), State::Unscheduled("not looked at by the scheduler yet".into())),
            (not, State::Unscheduled("Unschedulable: 0/3 nodes are available".into())),
            (scheduled(json!([]), waiting("ErrImagePull")), State::Starting(String::new())),
            (
                scheduled(json!([]), waiting("ImagePullBackOff")),
                State::Broken { container: "esgz", said: "ImagePullBackOff: as said".into() },
            ),
            (
                scheduled(json!([]), ended(2, "Error")),
                State::Broken { container: "esgz", said: "it ended with exit code 2 (Error)".into() },
            ),
            (two(waiting("ContainerCreating"), running()), State::Starting("ContainerCreating: as said".into())),
            (
                two(waiting("ImagePullBackOff"), running()),
                State::Broken { container: "workload", said: "ImagePullBackOff: as said".into() },
            ),
            (two(running(), running()), State::Running),
            (
                two(ended(137, "OOMKilled"), running()),
                State::WorkloadEnded("the workload's exit code is 137 (OOMKilled)".into()),
            ),
            (two(ended(0, "Completed"), ended(0, "Completed")), State::Collected),
            (two(running(), ended(0, "Completed")), State::Collected),
            (two(ended(0, "Completed"), ended(1, "Error")), State::CollectFailed("exit code 1 (Error)".into())),
            (killed, State::Killed("Evicted: low on memory".into())),
        ] {
            assert_eq!(of(&pod), expected, "{pod}");
        }
    }
}
