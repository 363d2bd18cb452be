//! The programs that people unpack with. One that is not installed is named and passed over.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use super::super::stored::Spelling;
use super::super::{Archive, Format, Kind};
use super::tree::Scratch;
use super::{read_whole, reader};

/// Each member's name and size, and a check of its content, by the central directory.
const PYTHON_ZIP: &str = "
import sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as archive:
    assert archive.testzip() is None
    for member in archive.infolist():
        assert member.flag_bits & 0x800
        print(member.filename.encode().hex(), member.file_size)
";

const PYTHON_TAR: &str = "
import sys, tarfile
with tarfile.open(sys.argv[1], 'r:') as archive:
    for member in archive:
        name = member.name.removeprefix('./') + '/' * member.isdir()
        print(name.encode(errors='surrogateescape').hex(), member.size)
        if member.isreg():
            file = archive.extractfile(member)
            while file.read(1 << 20):
                pass
";

/// The same by a reader that only ever sees what comes next. It compares sizes and CRCs itself.
const JAVA_ZIP: &str = r#"
import java.nio.charset.StandardCharsets;
import java.util.HexFormat;
import java.util.zip.*;

class Stream {
    public static void main(String[] arguments) throws Exception {
        var stream = new ZipInputStream(new java.io.BufferedInputStream(System.in, 1 << 16));
        var out = new StringBuilder();
        var buffer = new byte[1 << 16];
        for (ZipEntry entry; (entry = stream.getNextEntry()) != null; ) {
            long size = 0;
            for (int count; (count = stream.read(buffer)) >= 0; ) size += count;
            var name = entry.getName().getBytes(StandardCharsets.UTF_8);
            out.append(HexFormat.of().formatHex(name)).append(' ').append(size).append('\n');
        }
        System.out.print(out);
    }
}
"#;

/// Returns true if the calling test may take `time`, which is long; notes it if not.
pub(super) fn may_take(time: &str) -> bool {
    let asked = std::env::var("WINGLET_TESTS").unwrap_or_default();
    let may = asked.split(',').any(|word| word == "all");
    if !may {
        note(&format!("takes {time}; `make test-all` runs it"));
    }
    may
}

/// Notes why the calling test does not run, or not all of it: at once, and where `tests/summary.rs`
/// finds it.
fn note(reason: &str) {
    let thread = std::thread::current();
    let line = format!("{}: {reason}\n", thread.name().unwrap_or("a helper thread"));
    // Not `eprint!`, which a test that passes keeps to itself.
    let _ = write!(std::io::stderr(), "skipped {line}");
    let program = std::env::current_exe().unwrap();
    // target/tmp beside target/debug/deps/winglet-…, by the number of the cargo that runs all tests.
    let directory = program.ancestors().nth(3).unwrap().join("tmp");
    let list = directory.join(format!("skipped-{}", std::os::unix::process::parent_id()));
    std::fs::create_dir_all(directory).unwrap();
    let list = File::options().append(true).create(true).open(list);
    list.unwrap().write_all(line.as_bytes()).unwrap();
}

/// Whether `tool` is installed.
pub(super) fn has(tool: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths).any(|path| path.join(tool).is_file());
    if !found {
        note(&format!("{tool} is not installed"));
    }
    let strict = std::env::var_os("WINGLET_STRICT").is_some_and(|value| value != "0");
    assert!(found || !strict, "{tool} is not installed");
    found
}

/// Runs `tool` over the archive and returns its standard output.
///
/// # Panics
/// If it is not content.
pub(super) fn run(tool: &str, arguments: &[&str], stdin: Stdio) -> String {
    let mut command = Command::new(tool);
    // Names are UTF-8, whatever the machine's locale is.
    command.args(arguments).stdin(stdin).env("LC_ALL", "C.UTF-8");
    let output = command.output().unwrap();
    let (out, err) = (&output.stdout, String::from_utf8_lossy(&output.stderr));
    let out = String::from_utf8_lossy(out).into_owned();
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    out
}

/// Name and size of each member as the other programs' scripts print them.
pub(super) fn members(archive: &Archive) -> String {
    let mut text = String::new();
    let (mut path, mut spelling) = (Vec::new(), Spelling::default());
    for index in 0..archive.members() {
        let Some(member) = archive.stored(index, &mut path, &mut spelling) else { continue };
        let name = member.path;
        assert!(
            !name.starts_with(b"/") && !name.split(|&byte| byte == b'/').any(|name| name == b"..")
        );
        let slash = if member.kind == Kind::Directory { "2f" } else { "" };
        let name: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
        text.push_str(&format!("{name}{slash} {}\n", member.size));
    }
    text
}

fn bsdtar(path: &str) {
    if has("bsdtar") {
        run("bsdtar", &["-tf", path], Stdio::null());
        // From a pipe it reads member after member, and contents as well.
        run("sh", &["-c", "cat | bsdtar -xOf - >/dev/null"], open(path));
    }
}

fn open(path: &str) -> Stdio {
    File::open(path).unwrap().into()
}

/// What each program says to the zip at `path`.
pub(super) fn check_zip(scratch: &Scratch, archive: &Archive, path: &str) {
    let expected = members(archive);
    if has("unzip") {
        run("unzip", &["-tqq", path], Stdio::null());
    }
    if has("7z") {
        run("7z", &["t", "-bd", path], Stdio::null());
    }
    bsdtar(path);
    if has("python3") {
        assert!(run("python3", &["-c", PYTHON_ZIP, path], Stdio::null()) == expected);
    }
    if has("java") {
        let source = scratch.out("Stream.java");
        std::fs::write(&source, JAVA_ZIP).unwrap();
        let arguments = ["-Xshare:auto", source.to_str().unwrap()];
        assert!(run("java", &arguments, open(path)) == expected);
    }
}

/// What each program says to the tar at `path`.
pub(super) fn check_tar(archive: &Archive, path: &str) {
    if has("tar") {
        run("tar", &["-tf", path], Stdio::null());
    }
    if has("7z") {
        run("7z", &["t", "-bd", path], Stdio::null());
    }
    bsdtar(path);
    if has("python3") {
        let told = run("python3", &["-c", PYTHON_TAR, path], Stdio::null());
        assert!(told == members(archive), "{told}\n{}", members(archive));
    }
}

/// The archive as a file, checked by every program there is.
pub(super) fn check(scratch: &Scratch, archive: &Arc<Archive>) -> String {
    let path = scratch.out(&format!("archive.{}", archive.format().extension()));
    std::fs::write(&path, read_whole(scratch, archive)).unwrap();
    let path = path.to_str().unwrap().to_owned();
    match archive.format() {
        Format::Zip => check_zip(scratch, archive, &path),
        Format::Tar => check_tar(archive, &path),
    }
    path
}

/// Writes the archive without its zeros' blocks, so that a large one takes little of a disk.
pub(super) fn write_sparse(scratch: &Scratch, archive: &Arc<Archive>, path: &Path) {
    use std::io::{Seek, SeekFrom};
    let mut file = File::create(path).unwrap();
    let mut reader = reader(scratch, archive, 0..archive.length());
    let mut buffer = vec![0; 4096];
    loop {
        let count = fill(&mut reader, &mut buffer).unwrap();
        if count == 0 {
            break;
        }
        if buffer[..count].iter().any(|&byte| byte != 0) {
            file.write_all(&buffer[..count]).unwrap();
        } else {
            file.seek(SeekFrom::Current(count as i64)).unwrap();
        }
    }
    file.set_len(archive.length()).unwrap();
}

fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}
