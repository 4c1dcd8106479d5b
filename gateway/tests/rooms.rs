//! The rooms of `gateway/src` stand on floors: what a room imports is named before it in the list of `lib.rs`. So there
//! is no circle between rooms, and a change of one is seen by those after it only.
//!
//! `cargo test -p gateway --test rooms -- --nocapture` prints which room imports which.
#![allow(clippy::unwrap_used)] // a test that fails is a test that fails

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Rooms by floor, from the ground up, as `lib.rs` lists them: `//! 3. [`config`]: ...`.
fn floors(lib: &str) -> Vec<String> {
    let listed = lib.lines().filter_map(|line| {
        let line = line.strip_prefix("//! ")?;
        let (number, rest) = line.split_once(". ")?;
        number.parse::<u8>().ok().map(|_| rest)
    });
    let names = |line: &str| -> Vec<String> {
        line.split("[`")
            .skip(1)
            .filter_map(|rest| rest.split_once("`]").map(|(name, _)| name.to_owned()))
            .collect()
    };
    listed.flat_map(names).collect()
}

/// Rooms that a file names as `crate::ROOM`, its own tests and comments apart.
fn imports(text: &str) -> BTreeSet<String> {
    let code = text.split("\n#[cfg(test)]\nmod tests").next().unwrap();
    let lines = code.lines().map(|line| line.split("//").next().unwrap());
    let code: String = lines.collect::<Vec<_>>().join("\n");
    let mut rooms = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
        let name = &rest[..end.unwrap_or(rest.len())];
        if !name.is_empty() {
            rooms.insert(name.to_owned());
        } else if let Some((group, _)) = rest.strip_prefix('{').and_then(|g| g.split_once("};")) {
            // `use crate::{a::B, c::D}`: nobody writes so here, and this keeps it so.
            panic!("one use for one room, not {{{group}}}");
        }
    }
    rooms
}

fn files(directory: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && path.file_stem().is_some_and(|stem| stem != "tests")
        {
            found.push(path);
        }
    }
}

#[test]
fn no_room_imports_from_a_floor_above_it() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let floors = floors(&fs::read_to_string(source.join("lib.rs")).unwrap());
    let floor = |room: &str| floors.iter().position(|known| known == room);
    let mut rooms: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut all = Vec::new();
    files(&source, &mut all);
    for path in all {
        let inside = path.strip_prefix(&source).unwrap();
        let first = inside.components().next().unwrap().as_os_str();
        let room = first.to_str().unwrap().trim_end_matches(".rs").to_owned();
        if ["lib", "main"].contains(&room.as_str()) {
            continue;
        }
        assert!(floor(&room).is_some(), "lib.rs does not list {room}");
        for import in imports(&fs::read_to_string(&path).unwrap()) {
            if import != room {
                let of = rooms.entry(room.clone()).or_default();
                of.insert(import, inside.display().to_string());
            }
        }
    }
    // Rooms that are listed and those that there are are the same, so nothing above was looked at in vain.
    assert!(rooms.len() > 10, "{rooms:?}");
    let mut wrong = Vec::new();
    for room in &floors {
        let Some(imports) = rooms.get(room) else {
            continue;
        };
        let names: Vec<&str> = imports.keys().map(String::as_str).collect();
        println!("{room}: {}", names.join(" "));
        for (import, file) in imports {
            if floor(import) >= floor(room) {
                wrong.push(format!("{file} imports {import}, which is above {room}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn imports_are_found_and_those_of_tests_and_comments_are_not() {
    let text = "//! crate::cli\nuse crate::plan::Plan;\nfn f() { crate::sku::g() }\n\n#[cfg(test)]\nmod tests {\nuse crate::life;\n}";
    assert_eq!(
        imports(text).into_iter().collect::<Vec<_>>(),
        ["plan", "sku"]
    );
    assert_eq!(
        floors("//! 1. [`a`]: x; [`b`]\n//! - [`c`]\n//! 2. [`d`]"),
        ["a", "b", "d"]
    );
}
