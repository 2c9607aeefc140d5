//! Patches beside weights that are quantised blocks.

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QMatMul, QTensor};
use candle_core::{Device, Module, Tensor};
use plimsoll_cache::patch::Patch;
use plimsoll_cache::{Cache, Cpu, Error, Model, Storage};
use safetensors::Dtype;

use super::definitions::numbers;
use super::files::{encode, folder, says};
use super::support::MIB;
use super::written::{F32, Gguf};

const NAME: &str = "blk.0.attn_q.weight";

fn random(seed: &str, shape: (usize, usize)) -> Tensor {
    let numbers = numbers(Dtype::F32, seed, shape.0 * shape.1);
    let numbers: Vec<f32> = numbers.into_iter().map(|x| x as f32).collect();
    Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap()
}

#[test]
fn quantised_weights_take_patches_beside_them_and_no_other_way() {
    let folder = folder();
    let weights = random("weights", (16, 64));
    let blocks = QTensor::quantize(&weights, GgmlDType::Q8_0).unwrap();
    let path = folder.path().join("base.gguf");
    let mut file = std::fs::File::create(&path).unwrap();
    let architecture = ("general.architecture", &Value::String("llama".to_owned()));
    gguf_file::write(&mut file, &[architecture], &[(NAME, &blocks)]).unwrap();
    drop(file);
    let model = Model::open(path).unwrap();
    let (down, up) = (
        numbers(Dtype::F32, "down", 4 * 64),
        numbers(Dtype::F32, "up", 16 * 4),
    );
    let header = Gguf::new()
        .key("general.type", &Value::String("adapter".to_owned()))
        .key("adapter.lora.alpha", &Value::F32(8.0))
        .tensor(format!("{NAME}.lora_a"), &[64, 4], F32, 0)
        .tensor(format!("{NAME}.lora_b"), &[4, 16], F32, 1024);
    let data = [encode(Dtype::F32, &down), encode(Dtype::F32, &up)].concat();
    let path = folder.path().join("lora.gguf");
    std::fs::write(&path, [header.bytes(), data].concat()).unwrap();
    let patch = Patch::open(path).unwrap();
    for storage in [Storage::Heap, Storage::Anonymous, Storage::Mapped] {
        let cache = Cache::builder().ram(MIB).storage(storage).build().unwrap();
        let error = cache
            .lease([model.on(Cpu).with(&patch, 0.5).merged()])
            .unwrap_err();
        assert!(matches!(error, Error::BesideOnly { .. }), "{error}");
        let text = error.to_string();
        says(&text, &[NAME, "base", "Q8_0", "beside"]);
        assert!(!text.contains("  "), "{text}");
        assert_eq!(cache.usage().used_bytes, 0);
        // By room it goes beside, however much there is.
        let lease = cache.lease([model.on(Cpu).with(&patch, 0.5)]).unwrap();
        let leased = lease.get(&model).unwrap();
        assert_eq!(leased.is_merged(), Some(false));
        let beside = leased.beside(NAME).unwrap();
        let [beside] = &beside[..] else {
            panic!("{beside:?}");
        };
        assert_eq!(beside.scale, 0.5 * 8.0 / 4.0);
        let x = random("input", (3, 64));
        let quantised = QMatMul::from_arc(leased.quantised(NAME).unwrap()).unwrap();
        let y = (quantised.forward(&x).unwrap() + beside.linear(&x).unwrap()).unwrap();
        let tensor = |numbers: &[f64], shape: (usize, usize)| {
            let tensor = Tensor::from_slice(numbers, shape, &Device::Cpu);
            tensor.unwrap().to_dtype(candle_core::DType::F32).unwrap()
        };
        let change = tensor(&up, (16, 4))
            .matmul(&tensor(&down, (4, 64)))
            .unwrap();
        let wanted = QMatMul::from_qtensor(QTensor::quantize(&weights, GgmlDType::Q8_0).unwrap());
        let wanted = wanted.unwrap().forward(&x).unwrap();
        let wanted = (wanted + x.matmul(&change.t().unwrap()).unwrap()).unwrap();
        let away = (y - wanted).unwrap().abs().unwrap().max_all().unwrap();
        let away: f32 = away.to_scalar().unwrap();
        assert!(away < 1e-4, "{storage}: {away}");
    }
}
