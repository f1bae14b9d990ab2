//! Compiles the .proto files with protox, so that no protoc has to be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = protox::compile(["claviger/v1/link.proto"], ["."])?;
    println!("cargo:rerun-if-changed=claviger");
    tonic_prost_build::configure().compile_fds(files)?;
    Ok(())
}
