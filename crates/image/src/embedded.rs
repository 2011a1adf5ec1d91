//! `hello-world`, which needs no registry: a static program of a few hundred bytes, put together here.
//!
//! The program is one segment: ELF header, program header, code, text. It writes the text and ends; there is no libc, no
//! linker and no other file in the image.

use std::io::Cursor;

use oci::image::{History, ImageConfig, RootFs, RunConfig};
use oci::{Digest, Platform};
use serde_json::json;
use stdx::time::Timestamp;
use stdx::{Error, Result};
use storage::tar::{Entry, Kind, Writer};
use tokio::sync::mpsc;

use crate::{Images, LoadOptions};

/// What the image is called.
pub const NAME: &str = "hello-world:latest";

const TEXT: &str = "
Hello from Gantry!
If you can read this, your installation works.

What just happened:
 1. The gantry client asked the daemon to run the image \"hello-world\".
 2. The daemon found the image on this host: it brought it along, so no
    registry was needed. Other images are pulled from one.
 3. It gave a new container the image's files, a network of its own and its
    limits, and started the one program in there.
 4. That program wrote these lines. They went through the container's shim,
    which also keeps them for \"gantry logs\", to your terminal.

Try something bigger:
 $ gantry run -it busybox sh

";

/// When it was made, so that it is the same image everywhere.
const CREATED: &str = "2026-11-21T00:00:00Z";

impl Images {
    /// Keeps the image that comes with the engine.
    pub async fn load_embedded(&self) -> Result<()> {
        let (progress, mut unread) = mpsc::channel(16);
        let load = self.load(
            Cursor::new(hello_world()?),
            LoadOptions { quiet: true, ..LoadOptions::default() },
            progress,
        );
        let (loaded, ()) = tokio::join!(load, async { while unread.recv().await.is_some() {} });
        loaded.map(drop)
    }
}

/// The image as an archive that `load` takes. The same bytes each time.
pub fn hello_world() -> Result<Vec<u8>> {
    let program = program(TEXT.as_bytes())?;
    let layer = archive(&[("hello", &program, 0o755)])?;
    let created = Some(Timestamp::parse(CREATED)?);
    let platform = Platform::host();
    let step = |created_by: &str, empty_layer| History {
        created,
        created_by: created_by.to_owned(),
        empty_layer,
        ..History::default()
    };
    let config = ImageConfig {
        architecture: platform.architecture,
        os: platform.os,
        variant: platform.variant,
        created,
        config: RunConfig {
            cmd: vec!["/hello".to_owned()],
            working_dir: "/".to_owned(),
            env: vec![
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
            ],
            ..RunConfig::default()
        },
        history: vec![step("COPY hello / # gantry", false), step("CMD [\"/hello\"]", true)],
        rootfs: RootFs::layers(vec![Digest::of(&layer)]),
        ..ImageConfig::default()
    }
    .to_bytes();
    let manifest =
        json!([{ "Config": "config.json", "RepoTags": [NAME], "Layers": ["layer.tar"] }])
            .to_string();
    archive(&[
        ("config.json", &config, 0o644),
        ("layer.tar", &layer, 0o644),
        ("manifest.json", manifest.as_bytes(), 0o644),
    ])
}

fn archive(files: &[(&str, &[u8], u32)]) -> Result<Vec<u8>> {
    let mut writer = Writer::new(Vec::new());
    for (path, bytes, mode) in files {
        let mut entry = Entry::new(Kind::File, *path);
        entry.mode = *mode;
        entry.size = bytes.len() as u64;
        writer.append_file(&entry, &mut &bytes[..])?;
    }
    writer.finish()
}

/// A program that writes `text` to its standard output and ends with 0.
fn program(text: &[u8]) -> Result<Vec<u8>> {
    match std::env::consts::ARCH {
        "x86_64" => Ok(elf(62, &x86_64, text)),
        "aarch64" => Ok(elf(183, &aarch64, text)),
        other => {
            Err(Error::not_implemented(format!("hello-world is not supported on {other} yet")))
        }
    }
}

/// Where the file is mapped; the text follows the code.
const BASE: u64 = 0x40_0000;
const HEADERS: u64 = 64 + 56;

fn elf(machine: u16, code: &dyn Fn(u64, u32) -> Vec<u8>, text: &[u8]) -> Vec<u8> {
    let length = u32::try_from(text.len()).expect("the text is a page at most");
    // The length of the code does not depend on the address in it.
    let text_at = BASE + HEADERS + code(0, length).len() as u64;
    let code = code(text_at, length);
    let size = HEADERS + code.len() as u64 + text.len() as u64;
    let mut file = Vec::new();
    // e_ident: 64 bits, little endian, version 1, System V.
    file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    file.extend(2u16.to_le_bytes()); // ET_EXEC
    file.extend(machine.to_le_bytes());
    file.extend(1u32.to_le_bytes());
    file.extend((BASE + HEADERS).to_le_bytes()); // entry
    file.extend(64u64.to_le_bytes()); // program headers
    file.extend(0u64.to_le_bytes()); // no section headers
    file.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 1, 64, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    file.extend(1u32.to_le_bytes()); // PT_LOAD
    file.extend(5u32.to_le_bytes()); // read and execute
    for word in [0, BASE, BASE, size, size, 0x1_0000] {
        file.extend(word.to_le_bytes());
    }
    file.extend(code);
    file.extend(text);
    file
}

fn x86_64(text_at: u64, length: u32) -> Vec<u8> {
    let mut code = Vec::new();
    code.extend(b"\xb8\x01\0\0\0"); // mov eax, 1 (write)
    code.extend(b"\xbf\x01\0\0\0"); // mov edi, 1
    code.push(0xbe); // mov esi, text
    code.extend((text_at as u32).to_le_bytes());
    code.push(0xba); // mov edx, length
    code.extend(length.to_le_bytes());
    code.extend(b"\x0f\x05"); // syscall
    code.extend(b"\xb8\xe7\0\0\0"); // mov eax, 231 (exit_group)
    code.extend(b"\x31\xff"); // xor edi, edi
    code.extend(b"\x0f\x05"); // syscall
    code
}

fn aarch64(text_at: u64, length: u32) -> Vec<u8> {
    // movz xd, #value and movk xd, #value, lsl 16
    let movz = |register: u32, value: u32| 0xd280_0000 | (value & 0xffff) << 5 | register;
    let movk = |register: u32, value: u32| 0xf2a0_0000 | (value & 0xffff) << 5 | register;
    let address = text_at as u32;
    let svc = 0xd400_0001u32;
    let code = [
        movz(8, 64), // write
        movz(0, 1),
        movz(1, address),
        movk(1, address >> 16),
        movz(2, length),
        svc,
        movz(8, 94), // exit_group
        movz(0, 0),
        svc,
    ];
    code.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn the_program_runs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hello");
        std::fs::write(&path, program(TEXT.as_bytes()).unwrap()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let output = Command::new(&path).output().unwrap();
        assert!(output.status.success());
        assert_eq!(String::from_utf8(output.stdout).unwrap(), TEXT);
    }

    #[test]
    fn it_is_the_same_everywhere_and_small() {
        let image = hello_world().unwrap();
        assert_eq!(image, hello_world().unwrap());
        assert!(image.len() < 16 << 10);
    }

    #[test]
    fn arm_code_is_what_the_assembler_makes() {
        let code = aarch64(0x40_009c, 11);
        let words: Vec<u32> =
            code.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect();
        assert_eq!(
            words,
            [
                0xd280_0808,
                0xd280_0020,
                0xd280_1381,
                0xf2a0_0801,
                0xd280_0162,
                0xd400_0001,
                0xd280_0bc8,
                0xd280_0000,
                0xd400_0001
            ]
        );
    }
}
