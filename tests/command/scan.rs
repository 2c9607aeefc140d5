//! `plimsoll scan`, from folders of files to what it prints.

use std::os::unix::fs::symlink;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};

use crate::world::{World, text};

/// A file with these tensors of `F16`, all of zeros.
fn write(path: &Path, tensors: &[(&str, &[usize])]) {
    let zeros = vec![0_u8; 1 << 22];
    let views = tensors.iter().map(|(name, shape)| {
        let bytes = 2 * shape.iter().product::<usize>();
        let view = TensorView::new(Dtype::F16, shape.to_vec(), &zeros[..bytes]).unwrap();
        ((*name).to_owned(), view)
    });
    safetensors::serialize_to_file(views, None, path).unwrap();
}

#[test]
fn files_are_told_by_what_is_in_them_and_not_by_their_names() {
    let world = World::new();
    let folder = world.models(&[]);
    let unet = "lora_unet_mid_block_attentions_0_transformer_blocks_9_attn2_to_k";
    let (down, up) = (
        format!("{unet}.lora_down.weight"),
        format!("{unet}.lora_up.weight"),
    );
    write(
        &folder.join("a-language-model.safetensors"),
        &[(&down, &[16, 2048]), (&up, &[1280, 16])],
    );
    write(
        &folder.join("b.safetensors"),
        &[
            ("embeddings.word_embeddings.weight", &[30, 384]),
            ("embeddings.token_type_embeddings.weight", &[2, 384]),
            ("encoder.layer.0.attention.self.query.weight", &[384, 384]),
        ],
    );
    let json = world.json(&["scan", "models", "--json"]);
    let lora = &json["models"][0];
    assert_eq!(lora["kind"]["role"], "LoRA");
    assert_eq!(lora["kind"]["family"], "SDXL");
    assert_eq!(lora["kind"]["rank"], 16);
    assert_eq!(lora["kind"]["is_sure"], true);
    assert_eq!(lora["parameters"], 16 * 2048 + 1280 * 16);
    assert_eq!(lora["in_place_bytes"], lora["bytes"]);
    assert!(lora["storage"]["mapped"].as_u64() >= lora["bytes"].as_u64());
    assert_eq!(json["models"][1]["kind"]["family"], "BERT");

    let shown = world.run(&["scan", "models"]);
    let lines = text(&shown.stdout);
    assert!(
        lines.contains("a-language-model  SDXL LoRA, rank 16"),
        "{lines}"
    );
    assert!(
        lines.contains("b                 BERT embedding model"),
        "{lines}"
    );
    assert!(
        lines
            .lines()
            .take(3)
            .all(|line| line.chars().count() <= 100),
        "{lines}"
    );
    // Only a terminal is shown progress.
    assert_eq!(text(&shown.stderr), "");
    let long = text(&world.run(&["scan", "models", "--long"]).stdout);
    assert!(long.contains("cross attention to text 2048 wide"), "{long}");
    world.refused(&["scan", "models", "--long", "--json"]);
}

#[test]
fn folders_are_followed_through_links_once() {
    let world = World::new();
    let folder = world.models(&[("m", 1000)]);
    std::fs::create_dir(folder.join("inner")).unwrap();
    std::fs::rename(
        folder.join("m.safetensors"),
        folder.join("inner/m.safetensors"),
    )
    .unwrap();
    symlink(&folder, folder.join("inner/back")).unwrap();
    symlink(folder.join("inner"), folder.join("again")).unwrap();
    let json = world.json(&["scan", "models", "--json"]);
    assert_eq!(json["models"].as_array().unwrap().len(), 1, "{json}");
}

#[test]
fn a_name_as_long_as_names_can_be_leaves_room_for_the_columns() {
    let world = World::new();
    let folder = world.models(&[("m", 1000)]);
    let longest = format!("{}.safetensors", "\u{301}".repeat(120));
    std::fs::rename(folder.join("m.safetensors"), folder.join(longest)).unwrap();
    let shown = text(&world.run(&["scan", "models"]).stdout);
    let lines = shown.lines().take(2);
    assert!(
        lines.clone().all(|line| line.chars().count() < 200),
        "{shown}"
    );
    assert!(lines.last().unwrap().contains(".. "), "{shown}");
}

#[test]
fn names_that_are_not_text_are_printed_safe_and_are_no_error() {
    use std::os::unix::ffi::OsStrExt;
    let world = World::new();
    let folder = world.models(&[("m", 1000)]);
    let odd = std::ffi::OsStr::from_bytes(b"\xff\x1b[2J\n\xe2\x80\xae.gguf");
    std::fs::write(folder.join(odd), "x").unwrap();
    let output = world.run(&["scan", "models"]);
    assert_eq!(output.status.code(), Some(1), "one file cannot be read");
    let shown = text(&output.stdout);
    let name = "models/\u{fffd}\\u{1b}[2J\\n\\u{202e}.gguf: does not begin";
    assert!(shown.contains(name), "{shown}");
    let odd = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
    assert!(!shown.contains(odd), "{shown:?}");
    let json = world.run(&["scan", "models", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["bad"].as_array().unwrap().len(), 1);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let world = World::new();
    world.models(&[("m", 1000)]);
    for options in [&["scan", "models"][..], &["scan", "models", "--json"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = world.command(options).stdout(writer).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{options:?}");
        assert_eq!(text(&output.stderr), "");
    }
}
