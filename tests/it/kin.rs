//! Clients that people download with, and how each is told to.

use std::process::Command;

use rustix::process::Signal;

/// What resumes with `Range`, as scripts do: `python3 SCRIPT URL CA RATE`.
const URLLIB: &str = r#"
import os, ssl, sys, time, urllib.request
url, ca, rate = sys.argv[1], sys.argv[2], int(sys.argv[3])
have = os.path.getsize("file") if os.path.exists("file") else 0
request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
context = ssl.create_default_context(cafile=ca) if url.startswith("https") else None
with urllib.request.urlopen(request, context=context) as answer, open("file", "ab", 0) as file:
    assert answer.status == (206 if have else 200), answer.status
    while piece := answer.read(65536):
        file.write(piece)
        time.sleep(len(piece) / rate if rate else 0)
"#;
const REQUESTS: &str = r#"
import os, requests, sys, time
url, ca, rate = sys.argv[1], sys.argv[2], int(sys.argv[3])
have = os.path.getsize("file") if os.path.exists("file") else 0
headers = {"Range": f"bytes={have}-"} if have else {}
answer = requests.get(url, headers=headers, stream=True, verify=ca)
assert answer.status_code == (206 if have else 200), answer.status_code
with open("file", "ab", 0) as file:
    for piece in answer.iter_content(65536):
        file.write(piece)
        time.sleep(len(piece) / rate if rate else 0)
"#;

const NODE: &str = r#"
const fs = require("fs");
const [url, ca, rate] = [process.argv[1], process.argv[2], Number(process.argv[3])];
const have = fs.existsSync("file") ? fs.statSync("file").size : 0;
const headers = have ? { Range: `bytes=${have}-` } : {};
const scheme = require(url.startsWith("https") ? "https" : "http");
const tls = url.startsWith("https") ? { ca: fs.readFileSync(ca) } : {};
const fail = (what) => { console.error(String(what)); process.exit(1); };
scheme.get(url, { headers, ...tls }, (answer) => {
  if (answer.statusCode !== (have ? 206 : 200)) fail(answer.statusCode);
  answer.on("error", fail).on("data", (piece) => {
    fs.appendFileSync("file", piece);
    if (rate) {
      answer.pause();
      setTimeout(() => answer.resume(), (piece.length / rate) * 1000);
    }
  });
  answer.on("end", () => answer.complete || fail("cut"));
}).on("error", fail);
"#;

/// A client and what is known of it.
pub struct Kin {
    /// As the table has it.
    pub name: &'static str,
    /// What has to be installed.
    pub program: &'static str,
    /// Downloads `url` to `file`, at so many bytes per second, continuing what is there.
    pub command: fn(&mut Command, &Run),
    /// Uses several connections, and ends some of them early.
    pub parallel: bool,
    /// What slows it down is the server: itself it cannot, or only after it has read more into its
    /// memory. What a client that is killed had in there, it seems to have had for good.
    pub slow: bool,
    /// What it is killed by: some note only what they have when they are asked to end.
    pub signal: Signal,
}

/// What a client is told.
pub struct Run<'a> {
    /// From where.
    pub url: &'a str,
    /// The file of the authority to trust.
    pub ca: &'a str,
    /// Bytes per second; 0 is without a limit.
    pub rate: usize,
    /// A part of the file is there.
    pub again: bool,
}

fn aria2c(command: &mut Command, run: &Run, connections: usize) {
    command.args([format!("-x{connections}"), format!("-s{connections}")]);
    command.args(["-k1M", "-q", "--no-conf", "--file-allocation=none", "--retry-wait=0", "-o"]);
    command.args(["file", "-c", "--auto-save-interval=1", "--ca-certificate", run.ca]);
    command.arg(format!("--max-overall-download-limit={}", run.rate)).arg(run.url);
}

fn wget(command: &mut Command, run: &Run) {
    command.args(["-q", "--tries=1", "--no-hsts", "-c", "-O", "file", "--ca-certificate", run.ca]);
    command.arg(format!("--limit-rate={}", run.rate)).arg(run.url);
}

fn python(command: &mut Command, script: &str, run: &Run) {
    command.args(["-c", script, run.url, run.ca, &run.rate.to_string()]);
}

fn lftp(command: &mut Command, run: &Run) {
    let again = if run.again { "-c " } else { "" };
    let set = format!(
        "set ssl:ca-file {}; set pget:save-status 0.1s; \
         set net:max-retries 1; set xfer:clobber yes; set cmd:fail-exit yes; \
         pget -n 4 {again}\"{}\" -o file",
        run.ca, run.url
    );
    command.args(["-e", &format!("{set}; exit")]);
}

/// All of them.
pub fn clients() -> Vec<Kin> {
    let kin = |name, command: fn(&mut Command, &Run)| {
        let program = match name {
            "urllib" | "requests" => "python3",
            "Node's http" => "node",
            name => name.split(' ').next().unwrap_or(name),
        };
        Kin { name, program, command, parallel: false, slow: false, signal: Signal::KILL }
    };
    let parallel = |name, command: fn(&mut Command, &Run)| Kin {
        parallel: true,
        signal: Signal::INT,
        ..kin(name, command)
    };
    let slow = |name, command: fn(&mut Command, &Run)| Kin { slow: true, ..kin(name, command) };
    vec![
        slow("curl", |command, run| {
            command.args(["-sSf", "-C", "-", "-o", "file", "--cacert", run.ca, run.url]);
        }),
        kin("wget", wget),
        kin("wget --no-http-keep-alive", |command, run| {
            command.arg("--no-http-keep-alive");
            wget(command, run);
        }),
        slow("wget2", |command, run| {
            if run.again {
                command.arg("-c");
            }
            command.args([
                "-q",
                "--tries=1",
                "--no-hsts",
                "-O",
                "file",
                "--ca-certificate",
                run.ca,
            ]);
            command.arg(run.url);
        }),
        kin("urllib", |command, run| python(command, URLLIB, run)),
        kin("requests", |command, run| python(command, REQUESTS, run)),
        kin("Node's http", |command, run| {
            command.args(["-e", NODE, run.url, run.ca, &run.rate.to_string()]);
        }),
        Kin { slow: true, ..parallel("aria2c -x8", |command, run| aria2c(command, run, 8)) },
        Kin { slow: true, ..parallel("aria2c -x16", |command, run| aria2c(command, run, 16)) },
        parallel("axel", |command, run| {
            command.args(["-q", "-k", "-n", "4", "-o", "file"]);
            if run.rate > 0 {
                command.arg(format!("--max-speed={}", run.rate));
            }
            command.arg(run.url);
        }),
        Kin { parallel: true, ..slow("lftp pget", lftp) },
    ]
}
