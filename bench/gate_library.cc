/* SPDX-License-Identifier: Apache-2.0 */
#include "gate_library.h"

#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <sys/stat.h>

namespace bench {

namespace {

#if defined(__x86_64__)
constexpr int kMachine = EM_X86_64;
#elif defined(__aarch64__)
constexpr int kMachine = EM_AARCH64;
#else
constexpr int kMachine = EM_NONE;
#endif

/* Reads an ELF file without trusting it: every access is checked against the file's end. */
class Elf {
public:
  explicit Elf(const LibraryFile &file) : file_(file), bytes_(file.content) {
    if (bytes_.size() < sizeof header_ || std::memcmp(bytes_.data(), ELFMAG, SELFMAG) != 0) fail("it is no ELF file");
    if (bytes_[EI_CLASS] != ELFCLASS64 || bytes_[EI_DATA] != ELFDATA2LSB) fail("it is not a 64-bit little-endian ELF file");
    header_ = at<Elf64_Ehdr>(0);
    if (header_.e_machine != kMachine) fail("it was built for another kind of CPU");
    if (header_.e_type != ET_DYN) fail("it is no shared library");
    for (unsigned i = 0; i < header_.e_phnum; i++)
      segments_.push_back(at<Elf64_Phdr>(header_.e_phoff + i * uint64_t(sizeof(Elf64_Phdr))));
  }

  std::string soname() const {
    for (const Elf64_Phdr &s : segments_) {
      if (s.p_type != PT_DYNAMIC) continue;
      uint64_t names = 0, name = 0;
      for (uint64_t at_byte = 0; at_byte + sizeof(Elf64_Dyn) <= s.p_filesz; at_byte += sizeof(Elf64_Dyn)) {
        const Elf64_Dyn d = at<Elf64_Dyn>(s.p_offset + at_byte);
        if (d.d_tag == DT_STRTAB) names = d.d_un.d_ptr;
        if (d.d_tag == DT_SONAME) name = d.d_un.d_val;
        if (d.d_tag == DT_NULL) break;
      }
      return names && name ? text(offset_of(names) + name) : "";
    }
    return "";
  }

  /* In hexadecimal, or "" when the linker wrote none. */
  std::string build_id() const {
    for (const Elf64_Phdr &s : segments_) {
      if (s.p_type != PT_NOTE) continue;
      for (uint64_t here = 0; here + sizeof(Elf64_Nhdr) <= s.p_filesz;) {
        const Elf64_Nhdr note = at<Elf64_Nhdr>(s.p_offset + here);
        const uint64_t name = s.p_offset + here + sizeof note, id = name + (note.n_namesz + uint64_t(3)) / 4 * 4;
        if (note.n_type == NT_GNU_BUILD_ID && text(name) == "GNU") return hexadecimal(id, note.n_descsz);
        here += sizeof note + (note.n_namesz + uint64_t(3)) / 4 * 4 + (note.n_descsz + uint64_t(3)) / 4 * 4;
      }
    }
    return "";
  }

private:
  const LibraryFile &file_;
  const std::vector<char> &bytes_;
  Elf64_Ehdr header_ = {};
  std::vector<Elf64_Phdr> segments_;

  [[noreturn]] void fail(const char *why) const { throw GateError(file_.path + " is not liblamina: " + why); }

  template <typename T> T at(uint64_t offset) const {
    T value;
    if (offset > bytes_.size() || bytes_.size() - offset < sizeof value) fail("it is a damaged ELF file");
    std::memcpy(&value, bytes_.data() + offset, sizeof value);
    return value;
  }

  uint64_t offset_of(uint64_t address) const {
    for (const Elf64_Phdr &s : segments_)
      if (s.p_type == PT_LOAD && address >= s.p_vaddr && address - s.p_vaddr < s.p_filesz)
        return s.p_offset + (address - s.p_vaddr);
    fail("it is a damaged ELF file");
  }

  std::string text(uint64_t offset) const {
    std::string s;
    for (char c; s.size() < 256 && (c = at<char>(offset)) != 0; offset++) s += c;
    return s;
  }

  std::string hexadecimal(uint64_t offset, uint32_t count) const {
    std::string s;
    for (uint32_t i = 0; i < count && i < 64; i++) {
      char digits[4];
      std::snprintf(digits, sizeof digits, "%02x", at<unsigned char>(offset + i));
      s += digits;
    }
    return s;
  }
};

std::vector<char> read_all(const std::string &path) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) throw GateError(path + ": " + std::strerror(errno));
  if (!S_ISREG(info.st_mode)) throw GateError(path + " is not a file");
  std::ifstream in(path, std::ios::binary);
  std::vector<char> content((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  if (!in.good() && !in.eof()) throw GateError(path + ": " + std::strerror(errno));
  return content;
}

/* Of a library that was linked without a build id: 64 bits of FNV-1a over its content. */
std::string content_id(const std::vector<char> &content) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (char c : content) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  char text[24];
  std::snprintf(text, sizeof text, "fnv%016llx", static_cast<unsigned long long>(hash));
  return text;
}

template <typename F> void find(void *handle, const std::string &path, const char *name, F &function) {
  void *symbol = dlsym(handle, name);
  if (!symbol) throw GateError(path + ": it has no function " + name + ", which the gate needs");
  static_assert(sizeof symbol == sizeof function, "POSIX: a function's address fits a void *");
  std::memcpy(&function, &symbol, sizeof symbol);
}

} // namespace

LibraryFile read_library(const std::string &path) {
  LibraryFile file;
  file.path = path;
  file.content = read_all(path);
  const Elf elf(file);
  file.soname = elf.soname();
  const std::string stem = "liblamina.so.";
  if (file.soname.compare(0, stem.size(), stem) != 0)
    throw GateError(path + " is not liblamina: its soname is '" + file.soname + "'");
  if (file.soname != stem + std::to_string(LAMINA_SOVERSION))
    throw GateError(path + " has another ABI (" + file.soname + "); this gate drives " + stem +
                    std::to_string(LAMINA_SOVERSION));
  file.build_id = elf.build_id();
  if (file.build_id.empty()) file.build_id = content_id(file.content);
  return file;
}

Library::Library(const LibraryFile &file) {
  memory_ = memfd_create("liblamina", MFD_CLOEXEC);
  if (memory_ < 0) throw GateError(file.path + ": no memory for a copy: " + std::strerror(errno));
  for (size_t done = 0; done < file.content.size();) {
    const ssize_t n = write(memory_, file.content.data() + done, file.content.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      close(memory_);
      throw GateError(file.path + ": no memory for a copy: " + std::strerror(errno));
    }
    done += static_cast<size_t>(n);
  }
  /* The descriptor stays open: the loader knows libraries by their path, and its number must not come again. */
  handle_ = dlopen(("/proc/self/fd/" + std::to_string(memory_)).c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle_) {
    const std::string why = dlerror();
    close(memory_);
    throw GateError(file.path + " cannot be loaded: " + why);
  }
  try {
#define LAMINA_GATE_FIND(name) find(handle_, file.path, "lamina_" #name, api_.name)
    LAMINA_GATE_FIND(version);
    LAMINA_GATE_FIND(status_name);
    LAMINA_GATE_FIND(context_create);
    LAMINA_GATE_FIND(context_destroy);
    LAMINA_GATE_FIND(context_get_info);
    LAMINA_GATE_FIND(error_message);
    LAMINA_GATE_FIND(graph_create);
    LAMINA_GATE_FIND(graph_destroy);
    LAMINA_GATE_FIND(graph_input);
    LAMINA_GATE_FIND(graph_add);
    LAMINA_GATE_FIND(graph_output);
    LAMINA_GATE_FIND(graph_value);
    LAMINA_GATE_FIND(graph_input_name);
    LAMINA_GATE_FIND(graph_output_name);
    LAMINA_GATE_FIND(graph_load_model);
    LAMINA_GATE_FIND(plan_create);
    LAMINA_GATE_FIND(plan_destroy);
    LAMINA_GATE_FIND(plan_get_info);
    LAMINA_GATE_FIND(exec_create);
    LAMINA_GATE_FIND(exec_destroy);
    LAMINA_GATE_FIND(exec_set_input);
    LAMINA_GATE_FIND(exec_set_output_gradient);
    LAMINA_GATE_FIND(exec_forward);
    LAMINA_GATE_FIND(exec_backward);
    LAMINA_GATE_FIND(exec_step);
    LAMINA_GATE_FIND(exec_times);
    LAMINA_GATE_FIND(optimizer_defaults);
    LAMINA_GATE_FIND(tensor_of);
    LAMINA_GATE_FIND(tensor_count);
#undef LAMINA_GATE_FIND
  } catch (...) {
    dlclose(handle_);
    close(memory_);
    throw;
  }
}

Library::~Library() {
  dlclose(handle_);
  close(memory_);
}

} // namespace bench
