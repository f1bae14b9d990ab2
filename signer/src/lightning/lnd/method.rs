//! lnd's calls, and their numbers in the pipeline.

use prost::Message;

/// Declares lnd's calls: the name and the number that its request has in the pipeline.
macro_rules! methods {
    ($( $variant:ident $number:literal; )*) => {
        /// What a watch-only lnd may ask.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Method { $( #[doc = stringify!($variant)] $variant = $number, )* }

        impl Method {
            /// All of them.
            pub const ALL: &'static [Method] = &[ $( Method::$variant, )* ];

            /// The name, as in lnd's services.
            pub const fn name(self) -> &'static str { match self { $( Method::$variant => stringify!($variant), )* } }
        }
    };
}

methods! {
    SignPsbt 4000;
    DeriveSharedKey 4001;
    SignMessage 4002;
    MuSig2CreateSession 4003;
    MuSig2RegisterNonces 4004;
    MuSig2RegisterCombinedNonce 4005;
    MuSig2GetCombinedNonce 4006;
    MuSig2Sign 4007;
    MuSig2CombineSig 4008;
    MuSig2Cleanup 4009;
}

impl Method {
    /// The pipeline's form of a call: its number, then lnd's encoding.
    pub fn request(self, call: &impl Message) -> Vec<u8> {
        let mut message = (self as u16).to_be_bytes().to_vec();
        call.encode(&mut message).expect("a Vec grows");
        message
    }
}
