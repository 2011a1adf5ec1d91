//! What the tests execute as netd; the product's is `gantry` under another name.

fn main() -> std::process::ExitCode {
    network::netd::main()
}
