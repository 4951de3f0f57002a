//! How a connection looks to the endpoint: the case of headers' names, and the client's certificate.

use rcgen::{CertificateParams, CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::delivery::Dress;
use crate::delivery::identity::Identity;

/// Reads a request of the body `payload`, echoes its head, and closes.
async fn echo(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<()> {
    let mut read = Vec::new();
    while !read.ends_with(b"payload") {
        let mut chunk = [0; 1_024];
        let count = stream.read(&mut chunk).await?;
        if count == 0 {
            return Ok(());
        }
        read.extend_from_slice(&chunk[..count]);
    }
    let head = format!(
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        read.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&read).await?;
    stream.shutdown().await
}

async fn post(transport: &HttpTransport, url: &str, dress: Dress) -> Answer {
    let destination = Destination::dressed(Url::parse(url).unwrap(), dress);
    let mut headers = HeaderMap::new();
    headers.insert("webhook-id", "msg_1".parse().unwrap());
    transport
        .send(OutgoingRequest {
            method: http::Method::POST,
            kept_bytes: 0,
            destination: Arc::new(destination),
            headers,
            body: Bytes::from_static(b"payload"),
            timeout: PATIENCE,
        })
        .await
}

#[tokio::test]
async fn names_of_headers_are_in_the_case_that_the_endpoint_wants() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let mut server = JoinSet::new();
    server.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A client that goes away fails its own test.
            drop(echo(stream).await);
        }
    });
    let transport = laptop();
    for (title_case, expected) in [
        (false, "webhook-id: msg_1"),
        (true, "Webhook-Id: msg_1"),
        (false, "webhook-id: msg_1"),
    ] {
        let dress = Dress {
            title_case,
            identity: None,
        };
        let response = post(&transport, &url, dress).await.unwrap();
        let head = String::from_utf8(response.body.to_vec()).unwrap();
        assert!(head.contains(expected), "{head}");
    }
}

/// A server at `hook.example` that wants a certificate by `client`.
async fn strict(client: &CertifiedKey<KeyPair>) -> (u16, String, JoinSet<()>) {
    let own = generate_simple_self_signed(["hook.example".to_owned()]).unwrap();
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(client.cert.der().clone()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider));
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(
            vec![own.cert.der().clone()],
            PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut server = JoinSet::new();
    server.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(stream).await {
                // A client that goes away fails its own test.
                drop(echo(stream).await);
            }
        }
    });
    (port, own.cert.pem(), server)
}

fn certified(name: &str) -> CertifiedKey<KeyPair> {
    let signing_key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let cert = params.self_signed(&signing_key).unwrap();
    CertifiedKey { cert, signing_key }
}

fn identity(of: &CertifiedKey<KeyPair>) -> Dress {
    let key = of.signing_key.serialize_pem();
    let identity = Identity::parse(&of.cert.pem(), key.as_bytes()).unwrap();
    assert_eq!(format!("{identity:?}"), "Identity(redacted)");
    Dress {
        title_case: false,
        identity: Some(Arc::new(identity)),
    }
}

#[tokio::test]
async fn a_server_that_wants_a_certificate_gets_the_endpoints_own() {
    let (known, stranger) = (certified("client"), certified("other"));
    let (port, root, _server) = strict(&known).await;
    let settings = ClientSettings {
        policy: internet(port),
        extra_roots_pem: root.into_bytes(),
        ..ClientSettings::default()
    };
    let names = Names::with("hook.example", &[&["127.0.0.1"]]);
    let transport = HttpTransport::new(settings, names).unwrap();
    let url = format!("https://hook.example:{port}/");
    // The same transport and origin: no session or connection of one is another's.
    for _ in 0..2 {
        let answer = post(&transport, &url, identity(&known)).await;
        assert_eq!(answer.unwrap().status, 200);
        assert!(post(&transport, &url, Dress::default()).await.is_err());
        assert!(post(&transport, &url, identity(&stranger)).await.is_err());
    }
}
