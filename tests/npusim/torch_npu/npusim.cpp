// A simulated Ascend NPU: PyTorch's PrivateUse1 device over host memory, for tests only.
//
// Its tensors really are on "npu:0", so every library takes the code path it takes on an Ascend;
// the numbers come from the CPU's kernels. How one operator runs:
//
//   1. the dispatcher finds no npu kernel and calls run_on_cpu(), the one boxed fallback;
//   2. every npu tensor among the arguments is replaced by a CPU tensor over the same memory;
//   3. the operator runs again, now on the CPU;
//   4. what it returned, resized or rebound is brought back as npu tensors, without a copy.
//
// Device memory is exact because each storage is entered in a ledger while it lives.
// The README beside this folder says what to look at when PyTorch changes.
#include <ATen/EmptyTensor.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace {

constexpr auto kNpu = c10::DeviceType::PrivateUse1;
thread_local c10::DeviceIndex current_device = 0;

// ------------------------------------------------------------------------------------- ledger
// Allocated bytes of each device. Leaked, since tensors may outlive the library's globals.

struct Ledger {
  int64_t allocated = 0;
  int64_t peak = 0;          // since the last reset
  int64_t peak_overall = 0;  // of the whole process, whoever resets the other
  int64_t total = 0;
};

struct Machine {
  std::mutex mutex;
  std::vector<Ledger> devices;
  std::unordered_map<std::string, int64_t> operators;  // name to calls
};

Machine& machine() {
  static Machine& the_one = *new Machine;
  return the_one;
}

c10::DeviceIndex device_count() {
  return static_cast<c10::DeviceIndex>(machine().devices.size());
}

void check_device(int64_t index) {
  TORCH_CHECK(index >= 0 && index < device_count(), "Invalid NPU device index ", index);
}

void count_operator(const std::string& name) {
  std::lock_guard<std::mutex> lock(machine().mutex);
  ++machine().operators[name];
}

int64_t rounded(size_t nbytes) {  // the granularity of torch_npu's (and CUDA's) allocator
  return static_cast<int64_t>((nbytes + 511) / 512 * 512);
}

std::string readable(int64_t nbytes) {
  const char* unit = nbytes >= (1 << 30) ? "GiB" : nbytes >= (1 << 20) ? "MiB" : "KiB";
  const double scale = nbytes >= (1 << 30) ? 1 << 30 : nbytes >= (1 << 20) ? 1 << 20 : 1 << 10;
  char text[32];
  std::snprintf(text, sizeof(text), "%.2f %s", static_cast<double>(nbytes) / scale, unit);
  return text;
}

void enter(size_t nbytes, c10::DeviceIndex index) {
  check_device(index);
  std::lock_guard<std::mutex> lock(machine().mutex);
  Ledger& ledger = machine().devices[index];
  const int64_t size = rounded(nbytes);
  // The sentence, and its being a plain RuntimeError, are torch_npu's.
  TORCH_CHECK(
      ledger.allocated + size <= ledger.total,
      "NPU out of memory. Tried to allocate ", readable(size), " (NPU ", int(index), "; ",
      readable(ledger.total), " total capacity; ", readable(ledger.allocated),
      " already allocated; ", readable(ledger.allocated), " current active; ",
      readable(ledger.total - ledger.allocated), " free; ", readable(ledger.allocated),
      " reserved in total by PyTorch) If reserved memory is >> allocated memory try setting "
      "max_split_size_mb to avoid fragmentation.");
  ledger.allocated += size;
  ledger.peak = std::max(ledger.peak, ledger.allocated);
  ledger.peak_overall = std::max(ledger.peak_overall, ledger.allocated);
}

void leave(size_t nbytes, c10::DeviceIndex index) {
  std::lock_guard<std::mutex> lock(machine().mutex);
  machine().devices[index].allocated -= rounded(nbytes);
}

// ------------------------------------------------------------------------------------- memory
// Host memory under an npu label, entered in the ledger until it is freed.

struct Lease {
  c10::DataPtr host;
  size_t nbytes;
  c10::DeviceIndex device;
};

void end_lease(void* context) {
  auto* lease = static_cast<Lease*>(context);
  leave(lease->nbytes, lease->device);
  delete lease;
}

// The caller has entered nbytes already: the device may be full where the host is not.
c10::DataPtr leased(c10::DataPtr host, size_t nbytes, c10::DeviceIndex device) {
  void* data = host.get();
  return {data, new Lease{std::move(host), nbytes, device}, &end_lease, {kNpu, device}};
}

struct NpuAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t nbytes) override {
    enter(nbytes, current_device);
    return leased(c10::GetCPUAllocator()->allocate(nbytes), nbytes, current_device);
  }
  void copy_data(void* to, const void* from, size_t nbytes) const override {
    default_copy_data(to, from, nbytes);
  }
};
NpuAllocator allocator;
REGISTER_ALLOCATOR(kNpu, &allocator)

// The memory of a storage as host memory; the storage lives as long as the pointer does.
c10::DataPtr borrowed(const c10::Storage& storage) {
  auto release = [](void* context) { delete static_cast<c10::Storage*>(context); };
  return {storage.mutable_data(), new c10::Storage(storage), release, c10::Device(c10::kCPU)};
}

bool same(const c10::Storage& a, const c10::Storage& b) {
  return a.unsafeGetStorageImpl() == b.unsafeGetStorageImpl();
}

// ------------------------------------------------------------------------- one operator's call
// The pairs of npu and CPU objects over the same memory that one operator works with. CPU tensors
// among the arguments are entered as pairs of themselves, so that they come back as they went in.

class Call {
 public:
  c10::DeviceIndex device = current_device;
  bool npu_tensors = false;
  bool cpu_tensors = false;  // with dimensions: a CPU scalar may meet npu tensors

  c10::Storage to_cpu(const c10::Storage& npu) {
    if (npu.device_type() != kNpu) return npu;
    for (const auto& pair : storages_)
      if (same(pair.first, npu)) return pair.second;
    c10::Storage cpu(
        c10::Storage::use_byte_size_t(), npu.nbytes(), borrowed(npu), c10::GetCPUAllocator(), true);
    storages_.emplace_back(npu, cpu);
    return cpu;
  }

  at::Tensor to_cpu(const at::Tensor& tensor) {
    if (!tensor.defined()) return tensor;
    for (const auto& pair : tensors_)
      if (pair.first.is_same(tensor)) return pair.second;
    if (!tensor.is_privateuseone()) {
      cpu_tensors |= tensor.dim() > 0;
      tensors_.emplace_back(tensor, tensor);
      return tensor;
    }
    npu_tensors = true;
    device = tensor.device().index();
    auto cpu = at::detail::make_tensor<c10::TensorImpl>(
        to_cpu(tensor.storage()), c10::DispatchKeySet(c10::DispatchKey::CPU), tensor.dtype());
    auto* impl = cpu.unsafeGetTensorImpl();
    impl->set_sizes_and_strides(tensor.sizes(), tensor.strides(), tensor.storage_offset());
    // Python's numbers as tensors yield to the other operand's dtype.
    if (tensor.unsafeGetTensorImpl()->is_wrapped_number()) impl->set_wrapped_number(true);
    tensors_.emplace_back(tensor, cpu);
    return cpu;
  }

  // A tensor that the operator returned: an argument, a view of one, or new memory.
  at::Tensor to_npu(const at::Tensor& cpu) {
    if (!cpu.defined()) return cpu;
    for (const auto& pair : tensors_)
      if (pair.second.is_same(cpu)) return pair.first;
    c10::Storage storage = to_npu(cpu.storage());
    at::Tensor npu;
    for (const auto& pair : tensors_) {
      // A view has the keys of its base, which differ for one made in inference mode.
      if (npu.defined() || !same(pair.first.storage(), storage)) continue;
      npu = at::detail::make_tensor<c10::TensorImpl>(
          c10::TensorImpl::VIEW, c10::Storage(storage), pair.first.key_set(), cpu.dtype());
    }
    if (!npu.defined()) {
      npu = at::detail::make_tensor<c10::TensorImpl>(
          std::move(storage), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), cpu.dtype());
    }
    npu.unsafeGetTensorImpl()->set_sizes_and_strides(
        cpu.sizes(), cpu.strides(), cpu.storage_offset());
    return npu;
  }

  // Repeats on the npu side what the operator did to its arguments besides writing their values:
  // resize_ and out= resize a storage, set_ changes to another one, transpose_ changes the shape.
  void repeat_changes() {
    for (auto& [npu, cpu] : storages_) {
      if (npu.data() == cpu.data() && npu.nbytes() == cpu.nbytes()) continue;
      enter(cpu.nbytes(), device);
      auto* impl = npu.unsafeGetStorageImpl();
      impl->set_data_ptr_noswap(leased(borrowed(cpu), cpu.nbytes(), device));
      impl->set_nbytes(cpu.nbytes());
    }
    for (auto& [npu, cpu] : tensors_) {
      if (npu.is_same(cpu)) continue;
      auto* impl = npu.unsafeGetTensorImpl();
      c10::Storage storage = to_npu(cpu.storage());
      if (!same(storage, npu.storage())) impl->set_storage_keep_dtype(std::move(storage));
      if (npu.sizes() != cpu.sizes() || npu.strides() != cpu.strides() ||
          npu.storage_offset() != cpu.storage_offset())
        impl->set_sizes_and_strides(cpu.sizes(), cpu.strides(), cpu.storage_offset());
    }
  }

 private:
  c10::Storage to_npu(const c10::Storage& cpu) {
    for (const auto& pair : storages_)
      if (same(pair.second, cpu)) return pair.first;
    enter(cpu.nbytes(), device);
    c10::Storage npu(
        c10::Storage::use_byte_size_t(), cpu.nbytes(),
        leased(borrowed(cpu), cpu.nbytes(), device), &allocator, true);
    storages_.emplace_back(npu, cpu);
    return npu;
  }

  std::vector<std::pair<c10::Storage, c10::Storage>> storages_;  // npu, CPU
  std::vector<std::pair<at::Tensor, at::Tensor>> tensors_;       // npu, CPU
};

// Autograd, view tracking and autocast are done by the time a device's kernel runs. The CPU
// tensors of a Call would set them off again.
struct KernelScope {
  c10::impl::ExcludeDispatchKeyGuard guard{
      c10::autograd_dispatch_keyset_with_ADInplaceOrView | c10::autocast_dispatch_keyset};
};

// ----------------------------------------------------------------------------------- operators

template <typename Change>
void change_tensors(c10::IValue& value, Change change) {
  if (value.isTensor()) {
    value = change(value.toTensor());
  } else if (value.isTensorList()) {
    c10::List<at::Tensor> list;
    for (const at::Tensor& tensor : value.toTensorVector()) list.push_back(change(tensor));
    value = list;
  } else if (value.isOptionalTensorList()) {
    c10::List<std::optional<at::Tensor>> list;
    for (const auto& tensor : value.toOptionalTensorVector())
      list.push_back(tensor ? std::optional<at::Tensor>(change(*tensor)) : std::nullopt);
    value = list;
  }
}

// Indices may stay on the host; any other mixture is an error on an accelerator, and so here.
bool may_mix_devices(const std::string& name) {
  static const std::set<std::string> names{
      "aten::index", "aten::index_put_", "aten::_index_put_impl_"};
  return names.count(name) > 0;
}

void run_on_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  count_operator(c10::toString(op.operator_name()));
  const c10::FunctionSchema& schema = op.schema();
  const KernelScope scope;
  Call call;
  bool writes = false;
  const size_t first = stack->size() - schema.arguments().size();
  for (size_t i = first; i < stack->size(); ++i) {
    c10::IValue& value = (*stack)[i];
    const c10::AliasInfo* alias = schema.arguments()[i - first].alias_info();
    writes |= alias != nullptr && alias->isWrite();
    if (value.isDevice() && value.toDevice().type() == kNpu) {
      if (value.toDevice().has_index()) call.device = value.toDevice().index();
      value = c10::Device(c10::kCPU);
    } else if (value.isStorage()) {
      value = call.to_cpu(value.toStorage());
    } else {
      change_tensors(value, [&](const at::Tensor& tensor) { return call.to_cpu(tensor); });
    }
  }
  TORCH_CHECK(
      !(call.npu_tensors && call.cpu_tensors) || may_mix_devices(schema.name()),
      "Expected all tensors to be on the same device, but found at least two devices, npu:",
      int(call.device), " and cpu! (when running ", schema.name(), ")");
  op.callBoxed(stack);
  if (writes) call.repeat_changes();
  for (size_t i = stack->size() - schema.returns().size(); i < stack->size(); ++i)
    change_tensors(
        (*stack)[i], [&](const at::Tensor& tensor) { return call.to_npu(tensor); });
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&run_on_cpu>());
}

// Operators that PyTorch takes apart, and those of other libraries, have no autograd kernel. Up to
// torch 2.7 each such device brings the fallback itself, as torch_npu does.
TORCH_LIBRARY_IMPL(_, AutogradPrivateUse1, library) {
  if (!c10::Dispatcher::singleton().hasBackendFallbackForDispatchKey(
          c10::DispatchKey::AutogradPrivateUse1))
    library.fallback(torch::autograd::basicAutogradNotImplementedFallback());
}

// The four operators that every device must bring itself: the CPU's would make CPU tensors, and
// has no _copy_from.

constexpr c10::DispatchKeySet npu_keys(c10::DispatchKey::PrivateUse1);

at::Tensor empty(
    c10::IntArrayRef size, std::optional<c10::ScalarType> dtype, std::optional<c10::Layout>,
    std::optional<c10::Device> device, std::optional<bool>,
    std::optional<c10::MemoryFormat> format) {
  count_operator("aten::empty.memory_format");
  const c10::OptionalDeviceGuard guard(device);
  return at::detail::empty_generic(
      size, &allocator, npu_keys, c10::dtype_or_default(dtype), format);
}

at::Tensor empty_strided(
    c10::IntArrayRef size, c10::IntArrayRef stride, std::optional<c10::ScalarType> dtype,
    std::optional<c10::Layout>, std::optional<c10::Device> device, std::optional<bool>) {
  count_operator("aten::empty_strided");
  const c10::OptionalDeviceGuard guard(device);
  return at::detail::empty_strided_generic(
      size, stride, &allocator, npu_keys, c10::dtype_or_default(dtype));
}

at::Tensor copy_from(const at::Tensor& self, const at::Tensor& dst, bool /*non_blocking*/) {
  count_operator("aten::_copy_from");
  const KernelScope scope;
  Call call;
  call.to_cpu(dst).copy_(call.to_cpu(self));
  return dst;
}

// Whether `parameter.data = tensor` may keep the parameter's TensorImpl. PyTorch's own rule
// (TensorImpl::has_compatible_shallow_copy_type) lists the dense devices it knows and not
// PrivateUse1; without this, moving a model to the device would make new parameters and so untie
// an embedding from the output layer, which it does not on an Ascend.
bool compatible_shallow_copy(const at::Tensor& self, const at::Tensor& from) {
  auto is_dense = [](c10::DispatchKeySet keys) {
    return keys.has_any(c10::DispatchKeySet(c10::DispatchKey::Dense)) &&
        keys.has_any(c10::DispatchKeySet(
            {c10::BackendComponent::CPUBit, c10::BackendComponent::PrivateUse1Bit}));
  };
  return self.unsafeGetTensorImpl()->has_compatible_shallow_copy_type(from.key_set()) ||
      (is_dense(self.key_set()) && is_dense(from.key_set()));
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  library.impl("empty.memory_format", empty);
  library.impl("empty_strided", empty_strided);
  library.impl("_copy_from", copy_from);
  library.impl("_has_compatible_shallow_copy_type", compatible_shallow_copy);
  // Otherwise taken apart into sigmoid and products, and rounded otherwise than the CPU's kernel.
  library.impl("silu_backward", torch::CppFunction::makeFromBoxedFunction<&run_on_cpu>());
}

// ------------------------------------------------------------------------------ device and hooks
// There is one stream, and all work is done when a call returns.

struct NpuGuard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return kNpu; }
  c10::Device getDevice() const override { return {kNpu, current_device}; }
  void setDevice(c10::Device device) const override {
    check_device(device.index());
    current_device = device.index();
  }
  void uncheckedSetDevice(c10::Device device) const noexcept override {
    current_device = device.index();
  }
  c10::Device exchangeDevice(c10::Device device) const override {
    const c10::Device before = getDevice();
    setDevice(device);
    return before;
  }
  c10::DeviceIndex deviceCount() const noexcept override { return device_count(); }
  // torch 2.6 wants noexcept here, and has neither isBuilt nor isAvailable to override below.
  c10::Stream getStream(c10::Device device) const noexcept override {
    return c10::Stream(c10::Stream::DEFAULT, device);
  }
  c10::Stream exchangeStream(c10::Stream stream) const noexcept override { return stream; }
  void synchronizeDevice(c10::DeviceIndex) const override {}
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, NpuGuard)

struct NpuHooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const { return true; }
  bool isAvailable() const { return device_count() > 0; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return device_count(); }
  c10::DeviceIndex getCurrentDevice() const override { return current_device; }
  void setCurrentDevice(c10::DeviceIndex index) const override { current_device = index; }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex index) const override {
    return std::exchange(current_device, index);
  }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex index) const override {
    return index < 0 ? current_device : exchangeDevice(index);
  }
  at::Allocator* getPinnedMemoryAllocator() const override { return c10::GetCPUAllocator(); }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t nbytes) const override {
    c10::DataPtr fresh = allocator.allocate(nbytes);
    const size_t kept = std::min(nbytes, storage.nbytes());
    if (kept > 0) std::memcpy(fresh.mutable_get(), storage.data(), kept);
    storage.unsafeGetStorageImpl()->set_data_ptr_noswap(std::move(fresh));
    storage.set_nbytes(nbytes);
  }
};
NpuHooks hooks;
const bool hooked = (at::RegisterPrivateUse1HooksInterface(&hooks), true);

// ------------------------------------------------------------------------------- for torch.npu

void configure(int64_t devices, int64_t bytes_each) {
  Ledger empty;
  empty.total = bytes_each;
  machine().devices.assign(devices, empty);
}

void set_device(int64_t index) {
  check_device(index);
  current_device = static_cast<c10::DeviceIndex>(index);
}

std::vector<int64_t> memory(int64_t index) {
  check_device(index);
  std::lock_guard<std::mutex> lock(machine().mutex);
  const Ledger& ledger = machine().devices[index];
  return {ledger.allocated, ledger.peak, ledger.peak_overall, ledger.total};
}

void reset_peak(int64_t index) {
  check_device(index);
  std::lock_guard<std::mutex> lock(machine().mutex);
  Ledger& ledger = machine().devices[index];
  ledger.peak = ledger.allocated;
}

c10::Dict<std::string, int64_t> operators() {
  std::lock_guard<std::mutex> lock(machine().mutex);
  c10::Dict<std::string, int64_t> counts;
  for (const auto& [name, calls] : machine().operators) counts.insert(name, calls);
  return counts;
}

TORCH_LIBRARY(npusim, library) {
  library.def("configure", configure);
  library.def("device_count", []() -> int64_t { return device_count(); });
  library.def("current_device", []() -> int64_t { return current_device; });
  library.def("set_device", set_device);
  library.def("memory", memory);
  library.def("reset_peak", reset_peak);
  library.def("operators", operators);
}

}  // namespace

// ------------------------------------------------------------------------------------- autocast
// PyTorch's own lists of what to compute in which precision, as every other device registers them.

namespace at::autocast {
namespace {

TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFallthrough());
}

// The name of the library, m, is the macros' choice.
TORCH_LIBRARY_IMPL(aten, AutocastPrivateUse1, m) {
#define LOWER_PRECISION(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, lower_precision_fp)
#define FLOAT32(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, fp32)
#define FLOAT32_BY_DTYPE(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, fp32_set_opt_dtype)
#define WIDEST(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, promote)
  AT_FORALL_LOWER_PRECISION_FP(LOWER_PRECISION)
  AT_FORALL_FP32(FLOAT32)
  AT_FORALL_FP32_SET_OPT_DTYPE(FLOAT32_BY_DTYPE)
  AT_FORALL_DIFFERENT_REDISPATCH_SIGNATURE(KERNEL_DIFFERENT_REDISPATCH_SIGNATURE_PRIVATEUSEONE)
  AT_FORALL_PROMOTE(WIDEST)
}

}  // namespace
}  // namespace at::autocast
