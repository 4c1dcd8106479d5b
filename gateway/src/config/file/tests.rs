use super::*;
use std::fmt::Write as _;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

fn names(directory: &Path) -> Vec<OsString> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

#[test]
fn a_file_is_replaced_in_one_step_with_its_mode_and_owner() {
    let directory = tempfile::tempdir().unwrap();
    let (file, link) = (
        directory.path().join("a.toml"),
        directory.path().join("b.toml"),
    );
    fs::write(&file, "old").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    // Only root can give a file away; everybody else owns what he makes.
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        std::os::unix::fs::chown(&file, Some(1_234), Some(2_345)).unwrap();
    }
    symlink(&file, &link).unwrap();
    let mut locked = Locked::open(&link).unwrap();
    assert_eq!(locked.text().unwrap(), "old");
    locked.replace("new").unwrap();
    assert_eq!(locked.text().unwrap(), "new");
    locked.replace("newer").unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "newer");
    let about = fs::metadata(&file).unwrap();
    assert_eq!(about.mode() & 0o777, 0o640);
    if is_root {
        assert_eq!((about.uid(), about.gid()), (1_234, 2_345));
    }
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(names(directory.path()), ["a.toml", "b.toml"]);
}

/// Regression: the temporary file had a name that could be guessed, was opened through a symbolic link of that
/// name, and so a stranger's file was overwritten.
#[test]
fn what_stands_beside_the_file_is_not_written_to() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.toml");
    let other = directory.path().join("other");
    fs::write(&file, "old").unwrap();
    fs::write(&other, "a stranger's").unwrap();
    let pid = std::process::id();
    for planted in [format!("a.toml.{pid}.new"), format!("a.toml.{pid}")] {
        symlink(&other, directory.path().join(planted)).unwrap();
    }
    Locked::open(&file).unwrap().replace("new").unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "new");
    assert_eq!(fs::read_to_string(&other).unwrap(), "a stranger's");
    assert_eq!(names(directory.path()).len(), 4);
}

#[test]
fn a_file_that_was_never_finished_is_nobodys_and_goes() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.toml");
    fs::write(&file, "old").unwrap();
    let left = unfinished_name(OsStr::new("a.toml")).unwrap();
    assert!(is_unfinished(&left, OsStr::new("a.toml")));
    assert!(!is_unfinished(&left, OsStr::new("b.toml")));
    fs::write(directory.path().join(&left), "half").unwrap();
    let others = unfinished_name(OsStr::new("b.toml")).unwrap();
    fs::write(directory.path().join(&others), "half").unwrap();
    drop(Locked::open(&file).unwrap());
    assert_eq!(names(directory.path()), [others, "a.toml".into()]);
}

/// Regression: each of several commands read the file, changed it and wrote it, so that one undid another's
/// change.
#[test]
fn of_many_changes_at_once_none_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.toml");
    fs::write(&file, "").unwrap();
    let (writers, rounds) = (4, 25);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !over.load(Ordering::Acquire) {
                let text = read(&file).unwrap();
                assert!(
                    text.is_empty() || text.ends_with('\n'),
                    "half of it: {text:?}"
                );
            }
        });
        let writers: Vec<_> = (0..writers)
            .map(|writer| {
                let file = &file;
                scope.spawn(move || {
                    for round in 0..rounds {
                        let mut locked = Locked::open(file).unwrap();
                        let mut text = locked.text().unwrap();
                        writeln!(text, "{writer} {round}").unwrap();
                        locked.replace(&text).unwrap();
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.join().unwrap();
        }
        over.store(true, Ordering::Release);
        reader.join().unwrap();
    });
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(text.lines().count(), writers * rounds);
    assert_eq!(names(directory.path()), ["a.toml"]);
}

/// Regression: the open of a pipe that nobody writes never returned, and a device was read for ever.
#[test]
fn what_is_no_regular_file_is_refused_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, Mode::RUSR | Mode::WUSR).unwrap();
    for (path, what) in [
        (pipe.as_path(), "is a pipe"),
        (Path::new("/dev/zero"), "is a device"),
        (directory.path(), "is a directory"),
    ] {
        let error = read(path).unwrap_err();
        assert!(matches!(error, FileError::NotAFile(_)), "{error:?}");
        let said = error.to_string();
        assert!(said.starts_with(what), "{said}");
    }
    let absent = read(&directory.path().join("absent")).unwrap_err();
    assert!(matches!(absent, FileError::System(error) if error.kind() == io::ErrorKind::NotFound));
    let long = directory.path().join("long");
    let file = File::create(&long).unwrap();
    file.set_len(LONGEST + 1).unwrap();
    assert!(matches!(read(&long), Err(FileError::TooLong)));
}

#[test]
fn where_nothing_can_be_written_the_file_stays_and_nothing_is_left() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.toml");
    fs::write(&file, "old").unwrap();
    let mut locked = Locked::open(&file).unwrap();
    // A name that is too long once it is hidden: the system refuses the new file.
    locked.name = "x".repeat(250).into();
    assert!(matches!(locked.replace("new"), Err(FileError::System(_))));
    assert_eq!(fs::read_to_string(&file).unwrap(), "old");
    assert_eq!(names(directory.path()), ["a.toml"]);
}
