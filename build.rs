//! Links the program to a fixed address: a third of the page faults of a short command like `state` were relocations of
//! a static-pie, and `src/sys/start/anew.rs` can only map what stands where the file says. And what the usual verbs
//! execute is put together, so that few pages have to be mapped for it.

use std::path::Path;

/// A linker script with the functions that the usual verbs execute; `make layout` writes it.
const LAYOUT: &str = "src/layout.ld";

fn main() -> std::io::Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={LAYOUT}");
    let said = |name: &str| std::env::var(name).unwrap_or_default();
    if said("CARGO_CFG_TARGET_ENV") == "musl" {
        // std asks for this library, of which a program that never unwinds uses nothing (tools/build-release).
        let dir = said("OUT_DIR");
        std::fs::write(Path::new(&dir).join("libunwind.a"), "!<arch>\n")?;
        println!("cargo:rustc-link-search=native={dir}");
    }
    if said("CARGO_CFG_TARGET_FEATURE").split(',').any(|feature| feature == "crt-static") {
        // Behind the compiler's own -static-pie; of these options the last one counts.
        println!("cargo:rustc-link-arg-bins=-no-pie");
        println!("cargo:rustc-link-arg-bins=-static");
        if said("PROFILE") == "release" {
            println!("cargo:rustc-link-arg-bins=-Wl,-T,{}/{LAYOUT}", said("CARGO_MANIFEST_DIR"));
        }
        if said("CARGO_CFG_TARGET_ARCH") == "x86_64" {
            println!("cargo:rustc-link-arg-bins=-Wl,-e,orlop_start"); // src/sys/start.rs
        }
    }
    Ok(())
}
