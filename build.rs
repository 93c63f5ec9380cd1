//! Links the program to a fixed address: a third of the page faults of a short command like `state` were
//! relocations of a static-pie, and the verbs that make processes are executed twice. And what these execute is put
//! together, so that few pages have to be mapped for it.

/// A linker script with the functions that the usual verbs execute; `make layout` writes it.
const LAYOUT: &str = "src/layout.ld";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let features = std::env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    if features.split(',').any(|feature| feature == "crt-static") {
        // Behind the compiler's own -static-pie; of these options the last one counts.
        println!("cargo:rustc-link-arg-bins=-no-pie");
        println!("cargo:rustc-link-arg-bins=-static");
        println!("cargo:rerun-if-changed={LAYOUT}");
        if std::env::var("PROFILE").is_ok_and(|profile| profile == "release") {
            let root = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
            println!("cargo:rustc-link-arg-bins=-Wl,-T,{root}/{LAYOUT}");
        }
        if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64") {
            println!("cargo:rustc-link-arg-bins=-Wl,-e,orlop_start"); // src/sys/start.rs
        }
    }
}
