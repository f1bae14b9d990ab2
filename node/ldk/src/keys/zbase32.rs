//! The text form of a signed message, as lnd, Core Lightning and LDK write it.

const ALPHABET: &[u8; 32] = b"ybndrfg8ejkmcpqxot1uwisza345h769";

/// `bytes` in zbase32, five bits a letter, most significant first, without padding.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let letter = |bits: u32| ALPHABET[(bits & 31) as usize] as char;
    let mut text = String::with_capacity(bytes.len() * 8 / 5 + 1);
    let (mut buffer, mut filled) = (0u32, 0);
    for byte in bytes {
        buffer = buffer << 8 | u32::from(*byte);
        filled += 8;
        while filled >= 5 {
            filled -= 5;
            text.push(letter(buffer >> filled));
        }
    }
    if filled > 0 {
        text.push(letter(buffer << (5 - filled)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_strings() {
        assert_eq!(encode(b""), "");
        assert_eq!(encode(&[0]), "yy");
        assert_eq!(encode(&[0xf0, 0xbf, 0xc7]), "6n9hq");
        assert_eq!(encode(&[0xd4, 0x7a, 0x04]), "4t7ye");
    }
}
