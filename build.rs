//! What is built with the feature `cuda` looks for CUDA's libraries beside itself too.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_CUDA").is_some() {
        println!("cargo::rustc-link-arg=-Wl,-rpath,$ORIGIN/lib");
    }
}
