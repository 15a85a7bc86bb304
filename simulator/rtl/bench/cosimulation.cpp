// Runs the verilated test bench on an encoded program: program memories and DRAM storage live here, timing does not.

#include <cstdint>
#include <cstring>
#include <memory>

#include "Vtestbench.h"
#include "verilated.h"

namespace {
constexpr int kWordBytes = 64;

struct Stream {
    const uint8_t* words;
    uint32_t length;
};

void fetch(void* port, const Stream& stream, uint32_t pc) {
    if (pc < stream.length) std::memcpy(port, stream.words + size_t(pc) * kWordBytes, kWordBytes);
}

// Appends `cycle` to an event list each time its pulse is seen.
void record(bool pulse, int64_t cycle, int64_t* list, int64_t* count, int64_t capacity) {
    if (pulse) {
        if (*count < capacity) list[*count] = cycle;
        ++*count;
    }
}
}  // namespace

// streams: seven pointers to 64-byte words, in the order weight_dma, input_dma, output_dma, array, loader, gather,
// vector. starts: six lists (three DMA queues, array, preload, vector), completions: six lists (weights, input, reduce,
// sum, vector, store), each of `capacity` cycles, with their counts behind. Returns the cycles run.
extern "C" int64_t run_testbench(const uint8_t* const* streams, const uint32_t* lengths, uint8_t* dram,
                                 uint64_t dram_bytes, uint32_t bytes_per_kilocycle, uint32_t latency_cycles,
                                 uint32_t memory_seed, int64_t last_cycle, int64_t capacity, int64_t* starts, int64_t* start_counts,
                                 int64_t* completions, int64_t* completion_counts) {
    auto context = std::make_unique<VerilatedContext>();
    context->randReset(2);  // memories power up with anything in them
    context->randSeed(int(memory_seed));
    auto top = std::make_unique<Vtestbench>(context.get());
    Stream stream[7];
    for (int i = 0; i < 7; ++i) stream[i] = {streams[i], lengths[i]};
    top->weight_dma_length = lengths[0];
    top->input_dma_length = lengths[1];
    top->output_dma_length = lengths[2];
    top->array_length = lengths[3];
    top->loader_length = lengths[4];
    top->gather_length = lengths[5];
    top->vector_length = lengths[6];
    top->bytes_per_kilocycle = bytes_per_kilocycle;
    top->latency_cycles = latency_cycles;
    top->clk = 0;
    top->rst = 1;
    top->eval();
    top->clk = 1;
    top->eval();
    top->clk = 0;
    top->rst = 0;
    uint32_t seen[6] = {0, 0, 0, 0, 0, 0};
    int64_t cycle = 0;
    for (; cycle <= last_cycle; ++cycle) {
        top->eval();
        fetch(&top->weight_dma_word, stream[0], top->weight_dma_pc);
        fetch(&top->input_dma_word, stream[1], top->input_dma_pc);
        fetch(&top->output_dma_word, stream[2], top->output_dma_pc);
        fetch(&top->array_word, stream[3], top->array_pc);
        fetch(&top->loader_word, stream[4], top->loader_pc);
        fetch(&top->gather_word, stream[5], top->gather_pc);
        fetch(&top->vector_word, stream[6], top->vector_pc);
        top->eval();
        if (uint64_t(top->dram_read_address) + BEAT_BYTES <= dram_bytes)
            std::memcpy(&top->dram_read_data, dram + top->dram_read_address, BEAT_BYTES);
        top->eval();
        for (int byte = 0; byte < BEAT_BYTES; ++byte) {
            const auto* enable = reinterpret_cast<const uint8_t*>(&top->dram_write_enable);
            if (enable[byte / 8] >> (byte % 8) & 1)
                dram[uint64_t(top->dram_write_address) + byte] =
                    reinterpret_cast<const uint8_t*>(&top->dram_write_data)[byte];
        }
        const bool pulses[6] = {bool(top->start_weight_dma), bool(top->start_input_dma), bool(top->start_output_dma),
                                bool(top->start_array),      bool(top->start_preload),   bool(top->start_vector)};
        for (int i = 0; i < 6; ++i) record(pulses[i], cycle, starts + i * capacity, start_counts + i, capacity);
        const uint32_t counts[6] = {top->completed_weights, top->completed_input,  top->completed_reduce,
                                    top->completed_sum,     top->completed_vector, top->completed_store};
        for (int i = 0; i < 6; ++i) {
            record(counts[i] != seen[i], cycle, completions + i * capacity, completion_counts + i, capacity);
            seen[i] = counts[i];
        }
        top->clk = 1;
        top->eval();
        top->clk = 0;
    }
    top->final();
    return cycle;
}
