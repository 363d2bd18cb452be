//! How much memory the process may have: what its control groups allow, or the machine's.

use std::fs;

/// Limits of a control group, in version 2 and version 1 (cgroups(7)). Above `high` it is throttled.
const FILES: [&str; 3] = ["memory.max", "memory.high", "memory.limit_in_bytes"];

/// Bytes of memory that this process may have. To be asked before the sandbox hides the answer.
pub fn available() -> u64 {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let read = |path: &str| fs::read_to_string(path).ok();
    limit(&groups, read).unwrap_or(u64::MAX).min(machine())
}

fn machine() -> u64 {
    let system = rustix::system::sysinfo();
    // The types of the fields differ among architectures.
    #[allow(clippy::useless_conversion)]
    u64::from(system.totalram).saturating_mul(system.mem_unit.into())
}

/// The least limit of all `groups` that this process is in, and of those above them.
fn limit(groups: &str, read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    let mut limits = Vec::new();
    for group in groups.lines() {
        let mut fields = group.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let root = match controllers {
            "" => "/sys/fs/cgroup",
            controllers if controllers.split(',').any(|name| name == "memory") => {
                "/sys/fs/cgroup/memory"
            }
            _ => continue,
        };
        let mut path = path.trim_end_matches('/');
        loop {
            let values = FILES.iter().filter_map(|file| read(&format!("{root}{path}/{file}")));
            // `max` is no number: none.
            limits.extend(values.filter_map(|value| value.trim().parse::<u64>().ok()));
            let Some(above) = path.rfind('/') else { break };
            path = &path[..above];
        }
    }
    limits.into_iter().min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_group_counts() {
        let read = |path: &str| {
            let value = match path {
                "/sys/fs/cgroup/system.slice/winglet.service/memory.max" => "max\n",
                "/sys/fs/cgroup/system.slice/winglet.service/memory.high" => "300\n",
                "/sys/fs/cgroup/system.slice/memory.max" => "200\n",
                "/sys/fs/cgroup/memory/lxc/7/memory.limit_in_bytes" => "100\n",
                "/sys/fs/cgroup/memory.max" => "400\n",
                _ => return None,
            };
            Some(value.to_owned())
        };
        for (groups, expected) in [
            ("0::/system.slice/winglet.service\n", Some(200)),
            ("0::/\n", Some(400)),
            ("0::/system.slice/other.service", Some(200)),
            ("5:cpu,cpuacct:/lxc/7\n4:memory:/lxc/7\n0::/elsewhere\n", Some(100)),
            ("4:hugetlb,memory:/lxc/7\n", Some(100)),
            ("3:pids:/lxc/7\n", None),
            ("", None),
        ] {
            assert_eq!(limit(groups, read), expected, "{groups:?}");
        }
        assert!(available() > 0);
    }
}
